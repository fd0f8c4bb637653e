"""What fails during a prediction: for good or for now, known again on resuming, and never without a word at the end."""

import json
import os
import shutil
import subprocess
import time
from types import SimpleNamespace

import numpy as np
import pytest

from support import stand_in
from support.predicting import check_agreement, journal, of, predict, table
from support.predicting_together import predict as predict_in_several
from support.settings import SMALL, UNIAD
from support.stand_in import StandIn, part
from uniad_lightning import Detector
from uniad_lightning.errors import InputError, LostError, TemporaryError
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.inspection.engines.base import EngineOutput
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.prediction.files import PARTS, PredictionWriter
from uniad_lightning.prediction.merging import PartWriter
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.rows import Rows
from uniad_lightning.prediction.sources.items import Item
from uniad_lightning.prediction.sources.opening import open_source


@pytest.fixture
def listed(tmp_path):
    """A list of six images, of which two are not there and one is none."""
    for i in (0, 1, 2):
        part(tmp_path / f"in/{i}.png")
    (tmp_path / "in/3.png").write_bytes(b"%PDF")
    (tmp_path / "in/list.txt").write_text("".join(f"{i}.png\n" for i in (0, 4, 1, 3, 5, 2)))
    return tmp_path / "in/list.txt"


def test_what_may_pass_is_tried_again_and_its_row_replaced(listed, tmp_path, capfd):
    out = tmp_path / "out"
    counts = predict(listed, out, show=True)
    assert (counts.inspected, counts.failed, counts.temporary) == (3, 3, 2)
    assert ", 3 failed (2 worth another try: resume=true); " in capfd.readouterr().out
    assert [row["temporary"] for row in journal(out)] == [False, True, False, False, True, False]
    part(listed.parent / "4.png", defect=(1, 1, 2, 2))
    counts = predict(listed, out, resume=True, show=True)
    assert (counts.inspected, counts.failed, counts.temporary, counts.skipped, counts.failed_before) == (1, 1, 1, 4, 1)
    assert counts.incomplete
    assert (
        ", 1 failed (1 worth another try: resume=true); 4 more done before (1 of them failed); "
        in capfd.readouterr().out
    )
    names = check_agreement(out)
    assert sorted(names) == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png"]
    decisions = {row["path"]: row["decision"] for row in journal(out)}
    assert (decisions["4.png"], decisions["5.png"]) == ("defective", "")
    part(listed.parent / "5.png")
    part(listed.parent / "3.png")  # another file of that name
    counts = predict(listed, out, resume=True)
    assert (counts.inspected, counts.failed, counts.skipped, counts.failed_before) == (2, 0, 4, 0)
    assert not counts.incomplete
    assert not [name for name in os.listdir(out) if name.endswith(".tmp")]


def test_a_fault_of_the_system_is_none_of_the_file(tmp_path):
    part(tmp_path / "a.png")
    times = []

    def items(fails):
        for i in range(9):

            def read(i=i):
                times.append(i)
                if i in fails:
                    raise TemporaryError(f"{i}: Too many open files")
                return np.zeros((4, 4, 3), dtype=np.uint8)

            yield Item(f"{i}.png", read, 7, 7)

    for fails, resume, expected in (((1, 4, 8), False, (6, 3, 0)), ((4,), True, (2, 1, 6)), ((), True, (1, 0, 8))):
        with PredictionWriter(tmp_path / "out", overlays="none", settings={}, resume=resume) as writer:
            counts = predict_all(StandIn(), of(items(fails)), writer, batch_size=2, workers=2, show=False)
        assert (counts.inspected, counts.failed, counts.skipped) == expected
        assert len(check_agreement(tmp_path / "out")) == 9
    assert sorted(times) == sorted([*range(9), 1, 4, 8, 4])
    assert not [row for row in journal(tmp_path / "out") if row["error"]]


def test_rows_without_a_word_about_it_are_those_of_an_earlier_version(listed, tmp_path):
    predict(listed, tmp_path / "out")
    path = tmp_path / "out/predictions.jsonl"
    rows = [{k: v for k, v in row.items() if k != "temporary"} for row in journal(tmp_path / "out")]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert predict(listed, tmp_path / "out", resume=True).skipped == 6


def test_a_journal_that_is_made_anew_stays_whole_and_held(listed, tmp_path, monkeypatch):
    out = tmp_path / "out"
    predict(listed, out)
    before = (out / "predictions.jsonl").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            predict(listed, out, resume=True)
    assert (out / "predictions.jsonl").read_bytes() == before
    with (
        PredictionWriter(out, overlays="none", settings={}, resume=True),
        pytest.raises(InputError, match="another uniad predict writes there"),
    ):
        predict(listed, out, resume=True)
    assert len(journal(out)) == 4


def test_what_failed_before_is_not_forgotten(tmp_path):
    """After an end at any time, of one process or several."""
    for i in range(12):
        part(tmp_path / f"in/{i:02d}.png")
    (tmp_path / "in/01.png").write_bytes(b"%PDF")

    class Ending(StandIn):
        def predict(self, images, category=None):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().predict(images, category)

    with pytest.raises(KeyboardInterrupt):
        predict(tmp_path / "in", tmp_path / "out", detector=Ending())
    first = predict(tmp_path / "in", tmp_path / "out", resume=True)
    assert (first.failed, first.failed_before, first.incomplete) == (0, 1, True)
    assert predict(tmp_path / "in", tmp_path / "out", resume=True).incomplete
    found = predict_in_several(tmp_path / "in", tmp_path / "parts", 2, detectors=[Ending(), Ending()], batch_size=1)
    assert any(isinstance(one, KeyboardInterrupt) for one in found)
    first, second = predict_in_several(tmp_path / "in", tmp_path / "parts", 2, resume=True)
    assert (first.failed + first.failed_before, first.incomplete, second.incomplete) == (1, True, False)
    assert predict_in_several(tmp_path / "in", tmp_path / "parts", 3, resume=True)[0].failed_before == 1


def test_several_processes_try_again_what_any_of_them_failed_at(listed, tmp_path):
    class Ending(StandIn):
        def predict(self, images, category=None):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().predict(images, category)

    out = tmp_path / "out"
    predict_in_several(listed, out, 3, detectors=[Ending() for _ in range(3)], batch_size=1)
    assert list((out / PARTS).glob("*.jsonl"))
    for i in (4, 5):
        part(listed.parent / f"{i}.png")
    counts = predict_in_several(listed, out, 2, resume=True, batch_size=1)[0]
    assert counts.failed + counts.failed_before == 1
    assert counts.temporary == 0
    assert check_agreement(out) == ["0.png", "4.png", "1.png", "3.png", "5.png", "2.png"]


# Results that are removed under the hands of who writes them.


def remove(folder):
    """Renamed first: an overlay that is drawn meanwhile would be a file that the removal has not seen."""
    shutil.rmtree(folder.rename(folder.with_name("removed")))


def move(folder):
    folder.rename(folder.with_name("moved"))


def replace(folder):
    move(folder)
    folder.mkdir()
    (folder / "predictions.jsonl").touch()
    (folder / "predictions.csv").touch()


def replace_the_table(folder):
    (folder / "predictions.csv").unlink()


def test_a_folder_of_pictures_that_is_removed_while_one_is_drawn_is_missed(tmp_path):
    (item,) = open_source(str(part(tmp_path / "1.png", defect=(0, 0, 1, 1)))).items
    (tmp_path / "out").mkdir()

    class Vanishing(stand_in.Inspection):
        def overlay(self):
            shutil.rmtree(tmp_path / "out/overlays")
            return super().overlay()

    with pytest.raises(LostError, match=r"out: was removed or replaced"):
        Rows(tmp_path / "out", "all")(item, Vanishing(item.read(), calibrated=True), milliseconds=1.0)


@pytest.mark.parametrize("gone", [remove, move, replace, replace_the_table])
@pytest.mark.parametrize("at", [1, 4])  # the last one: no row comes after
def test_results_that_are_removed_are_missed_at_the_next_row(tmp_path, gone, at):
    for i in range(8):
        part(tmp_path / f"in/{i}.png", defect=(0, 0, 2, 2))

    class Removing(StandIn):
        def predict(self, images, category=None):
            if len(self.batches) == at - 1 and images:
                gone(tmp_path / "out")
            return super().predict(images, category)

    with pytest.raises(LostError, match=r"out.*: was removed or replaced while results were written there, and with"):
        predict(tmp_path / "in", tmp_path / "out", detector=Removing(), batch_size=2, overlays="all")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("out/*"))
    assert left == {
        remove: [], move: [], replace: left, replace_the_table: left
    }[gone]  # fmt: skip


def test_a_part_that_is_removed_is_missed(tmp_path):
    for i in range(8):
        part(tmp_path / f"in/{i}.png")

    class Removing(StandIn):
        def predict(self, images, category=None):
            if self.batches:
                shutil.rmtree(tmp_path / "out", ignore_errors=True)
            return super().predict(images, category)

    found = predict_in_several(tmp_path / "in", tmp_path / "out", 2, detectors=[Removing(), StandIn()], batch_size=1)
    assert any(isinstance(one, LostError) for one in found)
    assert not any(hasattr(one, "inspected") and not one.incomplete and one.inspected for one in found)


def test_results_removed_after_the_last_row_are_missed_at_the_end(tmp_path):
    with PredictionWriter(tmp_path / "out", overlays="none", settings={}) as writer:
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(LostError):
            writer.finish(None, "")
    processes = SimpleNamespace(rank=0, count=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.jsonl").touch()
    with PartWriter(tmp_path / "out", processes=processes, whole=None, overlays="none") as writer:
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(LostError):
            writer.finish(None, "")


# A score that is no number.


class Engine:
    """Scores the mean of the images; of black ones there is none, and of white ones the map has a hole."""

    region = (0.0, 0.0, 1.0, 1.0)
    boundary = Boundary(score=0.5, pixel=0.5, spread=0.1, images=100, rate=0.01, low=0.0, high=0.03)
    calibration = Calibration("rate=0.01", boundary, {})
    categories = ()
    white_level = 65535
    channels = None

    def __call__(self, images):
        scores = np.array([image.mean() / 255 for image in images])
        maps = np.stack([np.full((4, 4), score, dtype=np.float32) for score in scores])
        maps[scores == 1, 0, 0] = np.nan
        scores[scores == 0] = np.nan
        return EngineOutput(maps, scores, None, [None] * len(images))


def test_a_score_that_is_no_number_is_refused_and_costs_no_other_image(tmp_path):
    detector = Detector(engine=Engine())
    shades = [90, 0, 200, 255, 90]
    images = [np.full((8, 8, 3), shade, dtype=np.uint8) for shade in shades]
    assert [one.decision for one in detector.predict([images[0], images[2]])] == ["good", "defective"]
    for given, which in ((images[1], "1 of 1"), (images[3], "1 of 1"), (images, "2 of 5")):
        with pytest.raises(InputError, match=f"^image {which}: its score or map is not finite, so"):
            detector.predict(given)
    for i, shade in enumerate(shades):
        part(tmp_path / f"in/{i}.png", colour=(shade,) * 3)
    counts = predict(tmp_path / "in", tmp_path / "out", detector=detector, batch_size=5)
    assert (counts.good, counts.defective, counts.failed, counts.temporary) == (2, 1, 2, 0)
    assert [bool(row["error"]) for row in journal(tmp_path / "out")] == [False, True, False, True, False]


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_good(score):
    inspection = Inspection(
        np.zeros((4, 4, 3), np.uint8), score, np.zeros((4, 4)), Engine.region, None, Engine.boundary, None
    )
    assert inspection.decision == "defective"
    boundary = Engine.boundary._replace(score=float("nan"))
    assert Inspection(
        np.zeros((4, 4, 3), np.uint8), 0.0, np.zeros((4, 4)), Engine.region, None, boundary, None
    ).defective


# By the command line, with its exit status.


@pytest.fixture(scope="module")
def checkpoint(tree, tmp_path_factory):
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("runs") / "small"
    words = [*SMALL, f"data.root={tree}", f"output_dir={folder}", "trainer.max_epochs=1"]
    assert run_command("train", words) == 0
    return folder / "checkpoints/last.ckpt"


def test_exit_status(checkpoint, listed, tmp_path, uniad):
    words = [f"ckpt_path={checkpoint}", f"input={listed}", f"output_dir={tmp_path}/out"]
    status, out, _ = uniad("predict", *words)
    assert (status, "3 failed (2 worth another try: resume=true)" in out) == (1, True)
    for i in (4, 5):
        part(listed.parent / f"{i}.png")
    status, out, _ = uniad("predict", *words, "resume=true")
    assert (status, "4 more done before (1 of them failed)" in out) == (1, True)
    assert uniad("predict", *words, "resume=true")[0] == 1
    part(listed.parent / "3.png")
    assert uniad("predict", *words, "resume=true")[0] == 0
    assert len(table(tmp_path / "out")) == 7  # one of the file that was replaced


def test_exit_status_of_a_folder_whose_images_are_passed_over(checkpoint, tmp_path, uniad):
    content = part(tmp_path / "in/a.png").read_bytes()
    (tmp_path / "in/notes.txt").write_text("x")
    words = [f"ckpt_path={checkpoint}", f"input={tmp_path}/in"]
    status, out, err = uniad("predict", *words, f"output_dir={tmp_path}/one")
    assert (status, "passed over" in out) == (0, False)
    assert "uniad: warning: passed over, not images by their suffix: 1 .txt\n" in err
    (tmp_path / "in/b.dat").write_bytes(content)
    status, out, err = uniad("predict", *words, f"output_dir={tmp_path}/two")
    assert (status, "; 1 more passed over; " in out) == (1, True)
    assert "; of these 1 .dat are images all the same: save them as PNG, or give them the suffix" in err
    status, _, err = uniad("predict", f"ckpt_path={checkpoint}", f"input={tmp_path}/in/*.dat")
    assert (status, err.count("\n")) == (2, 1)
    assert "passed over, not images by their suffix: 1 .dat; of these" in err


@pytest.mark.slow
def test_exit_status_when_the_results_are_removed_under_watch(checkpoint, tmp_path):
    part(tmp_path / "in/a.png")
    words = [f"ckpt_path={checkpoint}", f"input={tmp_path}/in", f"output_dir={tmp_path}/out", "watch=true"]
    process = subprocess.Popen(
        [UNIAD, "predict", *words, "stop_after_idle=60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 100
    while time.monotonic() < until and not (
        (tmp_path / "out/predictions.csv").exists() and len(table(tmp_path / "out"))
    ):
        time.sleep(0.05)
    remove(tmp_path / "out")
    part(tmp_path / "in/b.png")
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1, err
    assert "Traceback" not in err
    assert "predictions.jsonl: was removed or replaced while results were written there" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
