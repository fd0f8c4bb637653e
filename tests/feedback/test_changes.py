"""What verdicts change: shown before it is taken, written beside, and true of what `uniad predict` then decides."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.training.checkpoint import load_checkpoint

ALARMS = ("bottle/bright/00.png", "bottle/bright/01.png", "cable/bright/00.png")
MISSES = ("bottle/faint/00.png", "cable/faint/03.png")
OTHERS = (("bottle/plain/00.png", "good"), ("cable/hole/00.png", "defective"))
VERDICTS = (*((name, "good") for name in ALARMS), *((name, "defective") for name in MISSES), *OTHERS)


def table(path):
    with path.open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file, strict=True)}


@pytest.fixture
def feedback(uniad, out, tmp_path):
    """Call `uniad feedback` on the copied predictions, with these verdicts: (status, stdout, stderr)."""

    def call(*words, verdicts=()):
        given = []
        if verdicts:
            file = tmp_path / "verdicts.csv"
            file.write_text("path,verdict\n" + "".join(f"{name},{verdict}\n" for name, verdict in verdicts))
            given = [f"verdicts={file}"]
        return uniad("feedback", f"predictions={out}", *given, f"output={tmp_path}/new", "device=cpu", *words)

    return call


def test_the_photographs_are_decided_as_these_tests_need_it(line):
    decisions = {path: row["decision"] for path, row in table(line / "out/predictions.csv").items()}
    assert {decisions[name] for name in ALARMS} == {"defective"}
    assert {decisions[name] for name in MISSES} == {"good"}
    assert [decisions[name] for name, _ in OTHERS] == ["good", "defective"]


@pytest.mark.parametrize("change", ["boundary", "memory_bank", "training"])
def test_nothing_is_changed_before_it_is_applied(feedback, line, tmp_path, change):
    bank = line / "bank/checkpoints/last.ckpt"
    before = bank.read_bytes()
    status, out, err = feedback(f"change={change}", verdicts=VERDICTS)
    assert status == 0, err
    assert "before: 3 false alarms of 4 good, 2 misses of 3 defective; recall 33.3%" in out
    assert "nothing is changed yet: the same call with apply=true writes it" in out
    for name, _ in VERDICTS:
        assert name in out
    assert not (tmp_path / "new").exists()
    assert bank.read_bytes() == before
    assert not (line / "bank/feedback.csv").exists()


def test_the_new_boundary_is_shown_as_predict_then_decides(feedback, line, uniad, tmp_path):
    status, out, err = feedback("change=boundary", "apply=true", verdicts=VERDICTS)
    assert status == 0, err
    assert "after:  0 false alarms of 4 good, 2 misses of 3 defective" in out
    assert "3 of 4 images reviewed as good called defective, chosen for high scores" in err
    shown = table(tmp_path / "new/decisions.csv")
    old, new = (load_checkpoint(str(run / "checkpoints/last.ckpt")) for run in (line / "bank", tmp_path / "new"))
    good = old["calibration"]["overall"]["images"] + 4
    assert new["calibration"]["overall"]["images"] == good  # those reviewed as good, and no defective one
    assert new["calibration"]["method"] == old["calibration"]["method"]
    assert all(torch.equal(tensor, new["state_dict"][name]) for name, tensor in tensors(old))
    status, _, err = uniad(
        "predict", f"ckpt_path={tmp_path}/new", f"input={line}/photos", f"output_dir={tmp_path}/p", "device=cpu"
    )
    assert status == 0, err
    rows = table(tmp_path / "p/predictions.csv")
    assert {name: row["decision_after"] for name, row in shown.items()} == {
        name: rows[name]["decision"] for name in shown
    }
    then = table(line / "out/predictions.csv")
    assert all(row["decision_then"] == row["decision_before"] == then[name]["decision"] for name, row in shown.items())
    facts = json.loads((tmp_path / "new/calibration/calibration.json").read_text())
    assert facts["checkpoint"] == str(tmp_path / "new/checkpoints/last.ckpt")
    assert uniad("evaluate", f"ckpt_path={tmp_path}/new", f"output_dir={tmp_path}/e", "trainer=cpu")[0] == 0


def tensors(checkpoint):
    return [(name, value) for name, value in checkpoint["state_dict"].items() if isinstance(value, torch.Tensor)]


def test_misses_set_the_boundary_where_recall_is_asked_for(feedback, tmp_path):
    words = ["change=boundary", "by=recall", "recall=0.99", "apply=true"]
    status, out, err = feedback(*words, verdicts=[*VERDICTS, ("cable/bright/00.png", "good")])
    assert status == 0, err
    assert "0 misses of 3 defective; recall 100.0%" in out
    assert Detector.load(tmp_path / "new", device="cpu").calibration.method == "recall=0.99"


def test_more_misses_are_warned_of(feedback):
    given = [("bottle/bright/00.png", "good"), ("bottle/bright/03.png", "defective")]
    status, out, err = feedback("change=memory_bank", verdicts=given)
    assert status == 0, err
    assert "after:  0 false alarms of 1 good, 1 miss of 1 defective; recall 0.0%" in out
    assert "warning: 1 more of the images reviewed as defective would be missed" in err


@pytest.mark.slow
def test_one_boundary_for_all_stays_one(feedback, line, uniad, tmp_path):
    (tmp_path / "one/checkpoints").mkdir(parents=True)
    shutil.copy(line / "bank/checkpoints/last.ckpt", tmp_path / "one/checkpoints/last.ckpt")
    words = [f"ckpt_path={tmp_path}/one", f"output_dir={tmp_path}/c", "boundaries=one", "rate=0.2", "device=cpu"]
    assert uniad("calibrate", *words)[0] == 0
    words = ["change=boundary", f"ckpt_path={tmp_path}/one", "apply=true"]
    status, out, err = feedback(*words, verdicts=VERDICTS)
    assert status == 0, err
    calibration = Detector.load(tmp_path / "new", device="cpu").calibration
    assert (calibration.by_category, calibration.method) == (False, "rate=0.2")
    assert "boundary: the boundary of all categories " in out


def test_false_alarms_enter_the_bank_and_are_none_from_then_on(feedback, line, uniad, tmp_path):
    status, out, err = feedback("change=memory_bank", "apply=true", verdicts=VERDICTS)
    assert status == 0, err
    assert "after:  0 false alarms of 4 good" in out
    old, new = (load_checkpoint(str(run / "checkpoints/last.ckpt")) for run in (line / "bank", tmp_path / "new"))
    patches, count = new["state_dict"]["bank.patches"], len(old["state_dict"]["bank.patches"])
    assert torch.equal(patches[:count], old["state_dict"]["bank.patches"])
    assert len(patches) == count + 3 * 64  # of the false alarms alone, 8 x 8 each
    owners = new["state_dict"]["bank.owner"][count:]
    assert owners.bincount().tolist() == [2 * 64, 64]
    detector = Detector.load(tmp_path / "new", device="cpu")
    shown = table(tmp_path / "new/decisions.csv")
    for name, row in shown.items():
        result = detector.predict(line / "photos" / name)
        assert (result.decision, result.score) == (
            row["decision_after"],
            pytest.approx(float(row["score_after"]), abs=1e-5),
        )
    assert all(shown[name]["decision_after"] == "good" for name in ALARMS)
    # What the bank has taken sets no boundary any more.
    status, _, err = feedback(f"ckpt_path={tmp_path}/new", "change=boundary", "apply=true", f"output={tmp_path}/next")
    assert status == 0, err
    assert "3 images with a verdict were trained on" in err
    images = {
        run: Detector.load(tmp_path / run, device="cpu").calibration.overall.images for run in ("new", "next")
    }  # fmt: skip
    assert images["next"] == images["new"] + 1
    # Nor is it unfamiliar again.
    again = Detector.load(tmp_path / "next", device="cpu")
    old = Detector.load(line / "bank", device="cpu")
    assert all(again.predict(line / "photos" / name).familiar for name in ALARMS)
    assert not all(old.predict(line / "photos" / name).familiar for name in ALARMS)


def test_the_next_training_takes_the_good_ones_and_no_defective_one(feedback, line, tree, uniad, tmp_path):
    status, out, err = feedback("change=training", "apply=true", verdicts=VERDICTS)
    assert status == 0, err
    assert "18 good images of the training -> 22: 4 reviewed as good added, 0 reviewed as defective taken out" in out
    listed = [json.loads(text) for text in (tmp_path / "new/train.jsonl").read_text().splitlines()]
    assert all(row["label"] == 0 for row in listed)
    root = tmp_path / "new"
    names = {str(Path(row["filename"])) for row in listed}
    assert (
        sum(name.endswith(tuple(f"photos/{good}" for good in (*ALARMS, "bottle/plain/00.png"))) for name in names) == 4
    )
    assert not [name for name in names if "faint" in name or "hole" in name]
    words = [word for word in FEATURES if not word.startswith("data.")]
    status, out, err = uniad(
        "train", *words, "model=memory_bank", "--config-dir", str(root), "data=with_feedback", "calibrate=true",
        f"output_dir={tmp_path}/next",
    )  # fmt: skip
    assert status == 0, err
    trained = load_checkpoint(str(tmp_path / "next/checkpoints/last.ckpt"))
    assert len(trained["trained"]) > len(load_checkpoint(str(line / "bank/checkpoints/last.ckpt"))["trained"])
    assert trained["config"]["data"]["image_size"] == 64


def test_a_train_image_that_is_defective_leaves_the_list_and_is_told(uniad, line, tree, tmp_path):
    words = [f"ckpt_path={line}/bank", f"input={tree}", f"output_dir={tmp_path}/own", "device=cpu", "overlays=none"]
    assert uniad("predict", *words)[0] in (0, 1)
    name = "bottle/train/good/001.png"
    (tmp_path / "v.csv").write_text(f"path,verdict\n{name},defective\ncable/test/good/000.png,good\n")
    words = [f"predictions={tmp_path}/own", f"verdicts={tmp_path}/v.csv", "device=cpu"]
    status, out, err = uniad("feedback", *words, "change=training", "apply=true", f"output={tmp_path}/new")
    assert status == 0, err
    assert "18 good images of the training -> 17: 0 reviewed as good added, 1 reviewed as defective taken out" in out
    assert name not in (tmp_path / "new/train.jsonl").read_text()
    assert "cable/test/good/000.png" in (tmp_path / "new/test.jsonl").read_text()  # a test image stays one


def test_earlier_folders_count_as_well(feedback, out, uniad, tmp_path):
    earlier = shutil.copytree(out, tmp_path / "earlier")
    feedback(verdicts=[VERDICTS[0]])
    (tmp_path / "v.csv").write_text("path,verdict\ncable/bright/01.png,good\n")
    assert uniad("feedback", f"predictions={earlier}", f"verdicts={tmp_path}/v.csv")[0] == 0
    status, said, err = feedback("change=memory_bank", f"earlier={earlier}")
    assert status == 0, err
    assert "before: 2 false alarms of 2 good" in said


@pytest.fixture
def give(uniad, tmp_path):
    """Give a verdict of a day on an image in a folder of predictions."""

    def call(folder, name, verdict, day):
        (tmp_path / "given.csv").write_text(f"path,verdict,when\n{name},{verdict},2026-01-{day:02}\n")
        status, _, err = uniad("feedback", f"predictions={folder}", f"verdicts={tmp_path}/given.csv")
        assert status == 0, err

    return call


@pytest.mark.parametrize("days", [(1, 2), (2, 1)])
def test_of_verdicts_in_several_folders_the_latest_on_a_file_counts_once(feedback, give, line, out, tmp_path, days):
    earlier = shutil.copytree(out, tmp_path / "earlier")
    settings = json.loads((earlier / "predictions.json").read_text())
    (tmp_path / "link").symlink_to(line / "photos")  # the same files by another name
    (earlier / "predictions.json").write_text(json.dumps({**settings, "input": f"{tmp_path}/link"}))
    for name in (ALARMS[0], ALARMS[1]):
        give(earlier, name, "good", days[0])
        give(out, name, "defective", days[1])
    give(out, ALARMS[2], "good", 1)
    reviewed = "0 misses of 2 defective" if days == (1, 2) else "0 misses of 0 defective"
    good = "1 false alarm of 1 good" if days == (1, 2) else "3 false alarms of 3 good"
    status, said, err = feedback("change=memory_bank", f"earlier={earlier}")
    assert status == 0, err
    assert f"before: {good}, {reviewed}" in said
    assert f"{'3 false alarms' if days == (2, 1) else '1 false alarm'} join" in said
    status, said, err = feedback("change=boundary", f"earlier={earlier}")
    assert status == 0, err
    status, said, err = feedback("change=training", f"earlier={earlier}", "apply=true")
    assert status == 0, err
    assert ("bright/00" in (tmp_path / "new/train.jsonl").read_text().replace("cable/bright", "")) == (days == (2, 1))


def test_a_folder_that_is_given_twice_counts_once(feedback, give, out, tmp_path):
    give(out, ALARMS[0], "good", 1)
    (tmp_path / "link").symlink_to(out)
    status, said, err = feedback("change=memory_bank", f"earlier=[{out},{tmp_path}/link,{out}/../{out.name}]")
    assert status == 0, err
    assert "before: 1 false alarm of 1 good" in said


def test_images_that_moved_are_found_where_they_are_told_to_be(feedback, line, out, tmp_path):
    settings = json.loads((out / "predictions.json").read_text())
    moved = shutil.copytree(line / "photos", tmp_path / "moved")
    (out / "predictions.json").write_text(json.dumps({**settings, "input": str(tmp_path / "gone")}))
    status, _, err = feedback("change=memory_bank", verdicts=VERDICTS)
    assert status == 2
    message = err.strip().splitlines()[-1]
    assert "7 of 7 images with a verdict cannot be used" in message
    assert f"{tmp_path}/gone/bottle/bright/00.png: no such file" in message
    assert "images=FOLDER" in message
    assert (out / "feedback.csv").is_file()  # the verdicts are kept all the same
    assert feedback("change=memory_bank", f"images={moved}")[0] == 0
    Image.new("RGB", (9, 9)).save(moved / ALARMS[0])
    status, _, err = feedback("change=memory_bank", f"images={moved}")
    assert status == 2
    assert "1 of 7 images" in err
    assert "another image by now" in err
    status, said, err = feedback("change=memory_bank", f"images={moved}", "on_missing=skip")
    assert status == 0, err
    assert "1 of 7 images" in err
    assert "before: 2 false alarms of 3 good" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["change=memory_bank"], "no image reviewed as good is called defective"),
        (["change=boundary", "by=median"], "by=median: expected one of rate, f1, recall"),
        (["change=boundary", "recall=0.9"], "recall=0.9: has no effect with by=rate; leave it out, or give by=recall"),
        (["change=boundary", "by=rate", "recall=0.9"], "recall=0.9: has no effect with by=rate"),
        (["change=boundary", "by=recall", "rate=0.1"], "rate=0.1: has no effect with by=recall"),
        (["change=boundary", "by=f1", "rate=0.1"], "rate=0.1: has no effect with by=f1"),
        (["change=boundary", "good=absent"], "good: 'absent' matches no image"),
        (["change=boundary", "rate=2"], "rate=2: expected a share"),
        (["change=boundary", "on_missing=ignore"], "on_missing=ignore: expected one of refuse, skip"),
        (["change=boundary", "ckpt_path=absent"], "ckpt_path=absent: no such file"),
    ],
)
def test_words_that_cannot_be_used_are_one_line(feedback, words, said):
    status, _, err = feedback(*words, verdicts=OTHERS)
    assert status == 2
    lines = [text for text in err.splitlines() if text.startswith("uniad: ") and "warning" not in text]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in err


def test_results_of_an_earlier_call_are_not_overwritten(feedback, tmp_path):
    assert feedback("change=training", "apply=true", verdicts=OTHERS)[0] == 0
    status, _, err = feedback("change=training", "apply=true")
    assert status == 2
    message = err.strip().splitlines()[-1]
    assert f"output={tmp_path}/new: holds the result of an earlier uniad feedback" in message
    assert "overwrite=true" in message
    assert feedback("change=training", "apply=true", "overwrite=true")[0] == 0


@pytest.mark.parametrize("change", ["boundary", "memory_bank", "training"])
@pytest.mark.parametrize("overwrite", ["true", "false"])
def test_a_run_is_never_overwritten(feedback, line, tmp_path, change, overwrite):
    run = shutil.copytree(line / "bank", tmp_path / "run")
    other = shutil.copytree(line / "bank", tmp_path / "other")
    (tmp_path / "link").symlink_to(run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    words = [f"change={change}", "apply=true", f"overwrite={overwrite}"]
    for given in (run, tmp_path / "link", other):
        status, _, err = feedback(*words, f"ckpt_path={run}", f"output={given}", verdicts=VERDICTS)
        assert status == 2
        (message,) = [text for text in err.splitlines() if "warning" not in text]
        assert f"output={given}: holds " in message
        assert "choose another output" in message
        assert "overwrite=true" not in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert (other / "checkpoints/last.ckpt").is_file()


def test_a_change_of_a_change_is_not_written_over_it(feedback, tmp_path):
    words = ["change=memory_bank", "apply=true"]
    assert feedback(*words, verdicts=VERDICTS)[0] == 0
    words = [*words[1:], "change=boundary", f"ckpt_path={tmp_path}/new", "overwrite=true"]
    status, _, err = feedback(*words)
    assert status == 2
    assert (
        f"output={tmp_path}/new: holds {tmp_path}/new/checkpoints/last.ckpt, which the change" in err.splitlines()[-1]
    )


@pytest.mark.parametrize("method", ["rate=abc", "boundary=0.5", "recall=", "magic"])
def test_a_method_that_cannot_be_repeated_is_one_line(feedback, line, tmp_path, method):
    checkpoint = load_checkpoint(str(line / "bank/checkpoints/last.ckpt"))
    checkpoint["calibration"]["method"] = method
    torch.save(checkpoint, tmp_path / "odd.ckpt")
    words = ["change=boundary", f"ckpt_path={tmp_path}/odd.ckpt"]
    status, _, err = feedback(*words, verdicts=VERDICTS)
    assert status == 2
    message = [text for text in err.splitlines() if "warning" not in text][-1]
    assert message.startswith("uniad: ")
    assert "Traceback" not in err
    assert feedback(*words, "by=rate", "rate=0.05")[0] == 0


@pytest.mark.slow
def test_good_images_of_the_calibration_are_given_again(feedback, line, uniad, tmp_path):
    shutil.copytree(line / "bank", tmp_path / "bank")
    good = f"good={line}/photos/*/plain"
    words = [f"ckpt_path={tmp_path}/bank", f"output_dir={tmp_path}/c", good, "device=cpu"]
    assert uniad("calibrate", *words)[0] == 0
    count = load_checkpoint(str(tmp_path / "bank/checkpoints/last.ckpt"))["calibration"]["overall"]["images"]
    words = ["change=boundary", f"ckpt_path={tmp_path}/bank"]
    status, said, err = feedback(*words, verdicts=VERDICTS)
    assert status == 0, err
    assert f"fewer images than the present one, {count} -> {count - 4}: those given to uniad calibrate as good=" in err
    # One of them is reviewed as defective since, which counts.
    status, said, err = feedback(
        *words, good, "apply=true", verdicts=[("bottle/plain/01.png", "defective"), ("bottle/plain/00.png", "good")]
    )
    assert status == 0, err
    assert "fewer images" not in err
    new = load_checkpoint(str(tmp_path / "new/checkpoints/last.ckpt"))["calibration"]["overall"]["images"]
    assert new == count + 3 - 1  # the false alarms join, the defective one leaves


def test_the_command_that_follows_can_be_typed(feedback, tmp_path):
    folder = f"{tmp_path}/with blank"
    status, said, err = feedback("change=training", "apply=true", f"output={folder}", verdicts=OTHERS)
    assert status == 0, err
    assert f"uniad train --config-dir '{folder}' data=with_feedback ..." in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_in_the_temporary_folder(feedback, line, out, tmp_path, number):
    feedback(verdicts=VERDICTS)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    words = [f"predictions={out}", "change=boundary", f"output={tmp_path}/new", "device=cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "uniad_lightning.command_line.cli", "feedback", *words],
        env={**os.environ, "TMPDIR": str(temporary)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests' own parent may ignore it, as nohup does
    )  # fmt: skip
    try:
        while not list(temporary.glob("uniad-*/checkpoints/last.ckpt")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("uniad: interrupted")
    assert not list(temporary.glob("uniad-*"))


@pytest.mark.slow
def test_a_detector_without_a_bank_says_what_it_can_do(uniad, tree, line, out, tmp_path):
    words = [*FEATURES, "model=padim", f"data.root={tree}", "data.held_out=0.3", "calibrate=true"]
    assert uniad("train", *words, f"output_dir={tmp_path}/padim")[0] == 0
    (tmp_path / "v.csv").write_text("path,verdict\nbottle/plain/00.png,good\n")
    words = [f"predictions={out}", f"verdicts={tmp_path}/v.csv", f"ckpt_path={tmp_path}/padim", "device=cpu"]
    status, _, err = uniad("feedback", *words, "change=memory_bank")
    assert status == 2
    assert "model=padim has no bank; use change=boundary, or change=training" in err.strip().splitlines()[-1]
