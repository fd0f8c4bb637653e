"""What `uniad predict` leaves in `drift.json`, and what `uniad drift` and a watchdog make of it."""

import json
import shutil
import subprocess
import threading

import pytest
import torch

from support.servers import wait_until
from support.settings import UNIAD
from uniad_lightning import Detector
from uniad_lightning.command_line.drift_command import show_drift
from uniad_lightning.drift.status_file import read_status
from uniad_lightning.errors import InputError
from uniad_lightning.exit_status import DONE, DRIFTED, FAILED, MISTAKE
from uniad_lightning.inspection.boundary import Calibration


def words(checkpoint, folder, *more):
    return [
        f"ckpt_path={checkpoint}", f"input={folder}/in", f"output_dir={folder}/out", "device=cpu", "overlays=none",
        "drift_window=50", *more,
    ]  # fmt: skip


def status(folder):
    path = folder / "out/drift.json"
    return read_status(path) if path.is_file() else {"state": None, "products": {}}


def said_of_drift(err):
    return [line for line in err.splitlines() if line.startswith("uniad: drift: ")]


def test_calibrate_keeps_what_later_images_are_compared_with(checkpoint):
    calibration = Detector.load(checkpoint, device="cpu").calibration
    assert list(calibration.baselines) == ["bottle", "cable"]
    for name, known in calibration.baselines.items():
        edge = calibration.categories[name]
        assert known.images == edge.images == 30
        assert known.compared == 30
        assert known.low < known.median < known.high < edge.score
        assert known.unfamiliar in (0, 1)


@pytest.mark.slow
def test_a_watched_line_drifts_and_a_resumed_call_goes_on_with_its_window(checkpoint, arrive, uniad, tmp_path):
    seen = []

    def line():
        arrive("good", 0, 60)
        wait_until(lambda: status(tmp_path)["state"] == "ok")
        seen.append(show_drift([f"{tmp_path}/out"]))
        arrive("dark", 0, 55)
        wait_until(lambda: status(tmp_path)["state"] == "drift")
        seen.append(show_drift([f"{tmp_path}/out"]))

    thread = threading.Thread(target=line)
    thread.start()
    code, out, err = uniad("predict", *words(checkpoint, tmp_path, "watch=true", "stop_after_idle=3"))
    thread.join()
    assert code == 0, err
    assert seen == [DONE, DRIFTED]
    (said,) = said_of_drift(err)
    assert "bottle has drifted: of the last 50 images " in said
    first = status(tmp_path)["products"]["bottle"]
    assert "(limit " in said
    assert "(over " in first["why"]  # five images after the alarm, whose limits are not those of its end
    assert first["window"]["images"] == 50
    assert first["window"]["median"] != first["calibration"]["median"]
    arrive("dark", 55, 57)
    code, _, err = uniad("predict", *words(checkpoint, tmp_path, "resume=true"))
    assert code == 0, err
    assert said_of_drift(err) == []  # nothing has changed
    assert status(tmp_path)["products"]["bottle"]["since"] == first["since"]
    assert status(tmp_path)["state"] == "drift"


def test_exit_statuses_of_the_command(checkpoint, arrive, uniad, tmp_path):
    arrive("good", 0, 20)
    assert uniad("predict", *words(checkpoint, tmp_path))[0] == 0
    done = subprocess.run([UNIAD, "drift", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == FAILED
    assert "bottle: unknown since " in done.stdout
    assert done.stdout.endswith(": 20 of 50 images\n")
    arrive("dark", 0, 60)
    shutil.rmtree(tmp_path / "out")
    assert uniad("predict", *words(checkpoint, tmp_path))[0] == 0
    done = subprocess.run([UNIAD, "drift", tmp_path / "out"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (DRIFTED, "")
    assert done.stdout.startswith("drift (written 2")


def test_a_checkpoint_of_an_earlier_version_says_what_it_lacks(checkpoint, arrive, uniad, tmp_path):
    stored = torch.load(checkpoint, weights_only=True)
    del stored["calibration"]["baselines"]
    older = tmp_path / "older.ckpt"
    torch.save(stored, older)
    assert Detector.load(older, device="cpu").calibration.baselines is None
    arrive("good", 0, 3)
    code, _, err = uniad("predict", *words(older, tmp_path))
    assert code == 0
    assert "uniad: warning: drift is not known: the detector was calibrated by an earlier version: uniad calibr" in err
    assert status(tmp_path)["state"] == "unknown"
    assert show_drift([f"{tmp_path}/out"]) == FAILED


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", 0, "no quartiles of good images"),
        ("median", 99.0, "no quartiles of good images"),
        ("low", float("nan"), "expected a finite number"),
        ("unfamiliar", 31, "31 unfamiliar of 30"),
        ("compared", 30.0, "expected a finite number"),
        ("images", 10**30, "more than 1000000000 images"),
        ("high", 10**400, "expected a finite number"),
        ("other", 1, "without its entries"),
    ],
)
def test_a_damaged_baseline_is_refused(checkpoint, tmp_path, key, value, message):
    stored = torch.load(checkpoint, weights_only=True)
    stored["calibration"]["baselines"]["cable"][key] = value
    torch.save(stored, tmp_path / "damaged.ckpt")
    with pytest.raises(InputError, match=message):
        Detector.load(tmp_path / "damaged.ckpt", device="cpu")


@pytest.mark.parametrize(
    "word",
    ["drift_window=9", "drift_window=many", "drift_window=2.5", "drift_window=null", "drift_window=100001",
     "drift_defects=1", "drift_defects=-0.1", "drift_defects=some", "drift_defects=true"],
)  # fmt: skip
@pytest.mark.parametrize("command", ["predict", "serve"])
def test_settings_that_are_none_are_one_line_and_leave_nothing(checkpoint, arrive, uniad, tmp_path, command, word):
    arrive("good", 0, 1)
    given = {"predict": words(checkpoint, tmp_path, word), "serve": [f"ckpt_path={checkpoint}", "device=cpu", word]}
    code, _, err = uniad(command, *given[command])
    key, _, value = word.partition("=")
    shown = {"null": "None", "true": "True"}.get(value, value)
    assert code == 2
    assert err.strip().splitlines()[-1].startswith(f"uniad: {key}={shown}: expected a ")
    assert not (tmp_path / "out/predictions.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("{", "not JSON"),
        ("[]", "expected a JSON object"),
        ('{"state": "good", "products": {}}', "says no state"),
        ('{"state": "ok", "products": {"a": 1}}', "says no state"),
        ('{"state": "ok", "products": {"a": {"state": "ok"}}}', "a product has no time or no reason"),
    ],
)
def test_a_file_that_says_no_state_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "drift.json").write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        show_drift([str(tmp_path)])
    assert str(tmp_path / "drift.json") in str(caught.value)


def test_a_name_steers_no_terminal_and_feigns_no_line(tmp_path, capsys):
    entry = {"state": "ok", "since": "now", "why": "all\x1b[2J\nc: drift"}
    (tmp_path / "drift.json").write_text(json.dumps({"state": "ok", "products": {"a\x1b[31m\nb": entry}}))
    assert show_drift([str(tmp_path)]) == DONE
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("given", [[], [""], ["x" * 300]])
def test_no_folder_is_not_taken_for_all_is_well(given):
    done = subprocess.run([UNIAD, "drift", *given], capture_output=True, text=True)
    assert done.returncode == MISTAKE
    assert len(done.stderr.splitlines()) == 1
    assert subprocess.run([UNIAD, "drift", "--help"], capture_output=True).returncode == DONE


def test_a_window_that_can_never_alarm_is_said_at_the_start(checkpoint, arrive, uniad, tmp_path):
    arrive("good", 0, 1)
    code, _, err = uniad("predict", *words(checkpoint, tmp_path, "drift_window=10"))
    assert code == 0
    said = "uniad: warning: drift_window=10 can never show drift with as few good images as the calibration had of "
    assert f"{said}bottle (30), cable (30): " in err
    assert "can never show drift" not in uniad("predict", *words(checkpoint, tmp_path, "overwrite=true"))[2]


@pytest.mark.parametrize("given", [["a", "b"], ["a", "since=1"]])
def test_one_folder_is_expected(given):
    with pytest.raises(InputError, match="expected one folder"):
        show_drift(given)


def test_baselines_come_back_from_the_metadata_of_an_exported_file(checkpoint):
    calibration = Detector.load(checkpoint, device="cpu").calibration
    assert Calibration.from_plain(json.loads(json.dumps(calibration.plain()))) == calibration
