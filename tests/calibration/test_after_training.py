"""A training that sets its boundary at the end."""

import torch

from support.settings import FEATURES
from uniad_lightning import Detector

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
