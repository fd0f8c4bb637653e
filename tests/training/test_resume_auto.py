"""`uniad train resume=auto`: one command for a training that is started again until it is finished."""

import json

import pytest
import torch

from support.checkpoints import weights
from support.settings import QUICK


@pytest.fixture
def auto(uniad, tree, tmp_path):
    """The command in `tmp_path/run`, with further words."""

    def call(*more):
        return uniad("train", *QUICK, f"data.root={tree}", f"output_dir={tmp_path}/run", "resume=auto", *more)

    return call


def test_it_begins_goes_on_and_leaves_alone(auto, tmp_path):
    status, out, err = auto("data.held_out=0.2")
    assert status == 0, err
    folder = tmp_path / "run"
    before = weights(folder), (folder / "results.csv").read_text()
    (folder / "metrics.json").unlink()  # as after a kill before the evaluation
    status, out, err = auto("data.held_out=0.2")
    assert status == 0, err
    assert "of them done" in out
    after = weights(folder), (folder / "results.csv").read_text()
    assert after[1] == before[1]
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    written = (folder / "metrics.json").stat().st_mtime_ns
    status, out, _ = auto("data.held_out=0.2")
    assert (status, (folder / "metrics.json").stat().st_mtime_ns) == (0, written)
    assert f"{folder}: finished before with the same settings, left as it is" in out
    status, _, _ = auto("data.held_out=0.2", "calibrate=true")  # what was asked for besides is not there yet
    assert status == 0
    assert json.loads((folder / "calibration/calibration.json").read_text())
    status, _, err = auto("data.held_out=0.2", "optimizer.lr=0.5")
    assert status == 2
    assert "already holds a run with optimizer.lr=0.001, this one has optimizer.lr=0.5; choose another" in err


@pytest.mark.slow
def test_a_training_from_a_checkpoint_goes_on_too(uniad, auto, tree, tmp_path):
    status, _, err = uniad("train", *QUICK, f"data.root={tree}", f"output_dir={tmp_path}/first")
    assert status == 0, err
    words = [f"init_from={tmp_path}/first/checkpoints/last.ckpt", "model.num_heads=4"]
    assert auto(*words)[0] == 0
    (tmp_path / "run/metrics.json").unlink()
    status, out, err = auto(*words)
    assert status == 0, err
    assert "of them done" in out
    assert "finished before" in auto(*words)[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["overwrite=true"], "resume=auto: goes on with what is in output_dir, so overwrite has no place"),
        (["ckpt_path=x"], "resume=auto: goes on with what is in output_dir, so ckpt_path has no place"),
    ],
)
def test_what_contradicts_it_is_refused(auto, tmp_path, words, said):
    (tmp_path / "run").mkdir()
    status, _, err = auto(*words)
    assert status == 2
    assert said in err


def test_without_a_folder_it_would_never_find_the_training(uniad, tree):
    status, _, err = uniad("train", *QUICK, f"data.root={tree}", "resume=auto")
    assert status == 2
    assert "resume=auto: finds the training by its folder; give output_dir=..., the same in each call" in err
