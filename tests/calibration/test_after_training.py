"""A training that sets its boundary at the end."""

import pytest
import torch
from omegaconf import OmegaConf

from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.calibration import after_training

DENOISER = [
    *FEATURES, "model=denoiser", "model.hidden_dim=16", "model.num_heads=2", "model.feedforward_dim=16",
    "model.num_layers=1", "trainer.max_steps=3", "data.batch_size=4", "calibrate=true",
]  # fmt: skip


def test_it_is_as_if_calibrate_were_called(uniad, tree, tmp_path):
    words = [*DENOISER, f"data.root={tree}", "data.held_out=0.3"]
    status, out, err = uniad("train", *words, f"output_dir={tmp_path / 'run'}")
    assert status == 0, err
    assert f"report: {tmp_path / 'run' / 'calibration'}" in out
    assert (tmp_path / "run/calibration/calibration.json").is_file()
    path = tmp_path / "run/checkpoints/last.ckpt"
    first = torch.load(path, weights_only=True)["calibration"]
    status, _, err = uniad("calibrate", f"ckpt_path={path}", f"output_dir={tmp_path / 'again'}")
    assert status == 0, err
    assert torch.load(path, weights_only=True)["calibration"] == first
    image = next((tree / "cable/test/good").glob("*.png"))
    assert Detector.load(path).predict(image).decision in ("good", "defective")


def test_a_run_that_is_overwritten_replaces_its_report(uniad, tree, tmp_path):
    words = [*DENOISER, f"data.root={tree}", "data.held_out=0.3", f"output_dir={tmp_path / 'run'}"]
    assert uniad("train", *words)[0] == 0
    status, _, err = uniad("train", *words, "overwrite=true")
    assert status == 0, err


def test_without_held_out_images_it_is_refused_before_the_training(uniad, tree, tmp_path):
    status, _, err = uniad("train", *DENOISER, f"data.root={tree}", f"output_dir={tmp_path / 'run'}")
    assert status == 2
    assert "calibrate=true: no good images are held out to set the boundary on; set data.held_out=0.1" in err
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_in_a_sweep_a_finished_run_without_its_boundary_gets_one(uniad, tree, tmp_path):
    words = [*DENOISER, f"data.root={tree}", "data.held_out=0.3", f"hydra.sweep.dir={tmp_path}", "-m", "seed=0"]
    assert uniad("train", *words)[0] == 0
    (report,) = tmp_path.glob("*/calibration/calibration.json")
    report.unlink()
    status, out, err = uniad("train", *words)
    assert status == 0, err
    assert report.is_file()
    assert uniad("train", *words)[0] == 0  # and then it is left as it is


def test_a_batch_above_the_train_images_is_lowered_with_a_warning(uniad, tree, tmp_path):
    words = [*DENOISER, f"data.root={tree}", "data.categories=[cable]", "data.batch_size=64", "calibrate=false"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path / 'run'}")
    assert status == 0, err
    assert "warning: data.batch_size=64 exceeds the" in err


def test_the_checkpoint_that_is_reported_is_calibrated(uniad, tree, tmp_path):
    words = [*DENOISER, f"data.root={tree}", "data.held_out=0.3", "callbacks=best_on_test", "validate_every=1"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path / 'run'}", "trainer.max_steps=6")
    assert status == 0, err
    (best,) = (tmp_path / "run/checkpoints").glob("best*")
    assert "calibration" in torch.load(best, weights_only=True)
    assert "calibration" not in torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)


def test_held_out_images_that_the_first_training_saw_are_none(uniad, tree, tmp_path):
    words = [*DENOISER, f"data.root={tree}"]
    assert uniad("train", *words, "calibrate=false", f"output_dir={tmp_path / 'first'}")[0] == 0
    start = f"init_from={tmp_path / 'first/checkpoints/last.ckpt'}"
    status, _, err = uniad("train", *words, start, "data.held_out=0.3", f"output_dir={tmp_path / 'second'}")
    assert status == 2
    assert "calibrate=true: no good images are held out" in err
    assert not (tmp_path / "second/checkpoints").exists()


@pytest.mark.parametrize(
    ("trainer", "device"),
    [({"accelerator": "cpu", "devices": 1}, "cpu"), ({"accelerator": "auto", "devices": 1}, "auto"),
     ({"accelerator": "gpu", "devices": [3]}, "cuda:3"), ({"accelerator": "gpu", "devices": "auto"}, "auto")],
)  # fmt: skip
def test_the_device_is_that_of_the_training(trainer, device):
    assert after_training._device(OmegaConf.create(trainer)) == device
