"""An evaluation of a checkpoint with a boundary."""

import csv
import os
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from support.settings import FEATURES, UNIAD
from support.trees import mvtec_tree

WORDS = [
    *FEATURES, "model=memory_bank", "calibrate=true", "data.held_out=0.3",
]  # fmt: skip


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("parts"), train=10, good=3)


@pytest.fixture(scope="module")
def calibrated(parts, tmp_path_factory):
    run = tmp_path_factory.mktemp("calibrated") / "run"
    words = ["train", *WORDS, f"data.root={parts}", f"output_dir={run}"]
    done = subprocess.run([UNIAD, *words], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return run


def test_a_training_writes_every_score_and_no_decision(calibrated):
    written = rows(calibrated / "test_scores.csv")
    assert len(written) == 12
    assert {row["decision"] for row in written} == {""}
    assert np.asarray(Image.open(calibrated / "mistakes.png")).std() > 10
    assert not (calibrated / "outcomes.csv").exists()


def test_an_evaluation_decides_as_the_calibration_did(uniad, calibrated, tmp_path):
    checkpoint = f"ckpt_path={calibrated}/checkpoints/last.ckpt"
    status, out, err = uniad("evaluate", checkpoint, f"output_dir={tmp_path}/e", "trainer=cpu")
    assert status == 0, err
    assert "decisions on the test images" in out
    assert "not trained on" not in err
    expected = [row for row in rows(calibrated / "calibration/outcomes.csv") if row["kind"] == "own"]
    assert rows(tmp_path / "e/outcomes.csv") == expected
    before, after = rows(calibrated / "test_scores.csv"), rows(tmp_path / "e/test_scores.csv")
    assert [row["path"] for row in before] == [row["path"] for row in after]
    wrong = sum(row["decision"] != row["label"] for row in after)
    assert wrong == int(expected[-1]["false_alarms"]) + int(expected[-1]["misses"])


def test_categories_that_were_not_trained_on_are_named(uniad, calibrated, parts, tmp_path):
    shutil.copytree(parts / "bottle", tmp_path / "data/lid")
    words = [
        f"ckpt_path={calibrated}/checkpoints/last.ckpt",
        "data=mvtec",
        f"data.root={tmp_path}/data",
        "data.image_size=64",
    ]
    status, _, err = uniad("evaluate", *words, f"output_dir={tmp_path}/e", "trainer=cpu")
    assert status == 0, err
    (line,) = [line for line in err.splitlines() if "not trained on" in line]
    assert "not trained on lid; it knows bottle, cable" in line


@pytest.mark.slow
def test_two_processes_write_the_scores_and_the_worst_images_of_one(uniad, calibrated, tmp_path):
    words = [f"ckpt_path={calibrated}/checkpoints/last.ckpt", "data.eval_batch_size=2"]
    assert uniad("evaluate", *words, f"output_dir={tmp_path}/one", "trainer=cpu")[0] == 0
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", f"output_dir={tmp_path}/two"]
    done = subprocess.run([UNIAD, "evaluate", *words, *two], env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, both = (rows(tmp_path / name / "test_scores.csv") for name in ("one", "two"))
    for alone, shared in zip(one, both, strict=True):
        assert (alone["path"], alone["decision"]) == (shared["path"], shared["decision"])
        assert float(alone["score"]) == pytest.approx(float(shared["score"]), rel=1e-5)
    sheets = [np.asarray(Image.open(tmp_path / name / "mistakes.png")).astype(int) for name in ("one", "two")]
    assert abs(sheets[0] - sheets[1]).mean() < 0.5
