"""What a training says it has learned: the share of the features that is explained, and the picture of its loss."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from support.settings import FEATURES, SMALL
from uniad_lightning.training.loss_picture import draw_loss


def last_loss(folder):
    with next((folder / "logs").rglob("metrics.csv")).open() as file:
        return [float(row["train/loss_epoch"]) for row in csv.DictReader(file) if row["train/loss_epoch"]][-1]


def height(folder):
    return np.asarray(Image.open(folder / "loss.png")).shape[0]


@pytest.mark.slow
def test_a_training_on_standardised_features_says_what_it_explains(uniad, tree, tmp_path):
    words = [*SMALL, f"data.root={tree}", "standardize=true", "validate_every=1", "trainer.log_every_n_steps=1"]
    status, out, err = uniad("train", *words, f"output_dir={tmp_path}/run")
    assert status == 0, err
    explained = json.loads((tmp_path / "run/metrics.json").read_text())["features_explained"]
    assert explained == pytest.approx(1 - last_loss(tmp_path / "run"))
    assert explained < 0  # worse than the mean of the features
    assert "features explained: nothing (1 - last training loss)" in out
    (warning,) = [line for line in err.splitlines() if "hardly learned" in line]
    assert "train longer" in warning
    status, out, err = uniad(
        "train", *words, "trainer.max_epochs=60", "validate_every=null", "optimizer.lr=1e-2", "schedule=cosine",
        "model.dropout=0", "model.jitter.prob=0", f"output_dir={tmp_path}/long",
    )  # fmt: skip
    assert status == 0, err
    assert json.loads((tmp_path / "long/metrics.json").read_text())["features_explained"] > 0.5
    assert "hardly learned" not in err
    assert height(tmp_path / "run") > height(tmp_path / "long") > 200  # a panel of validations below the loss


@pytest.mark.parametrize("words", [["standardize=false"], ["standardize=true", "loss=cosine"]], ids=["raw", "cosine"])
def test_other_losses_and_features_are_no_share_of_a_variance(uniad, tree, tmp_path, words):
    status, out, err = uniad("train", *SMALL, *words, f"data.root={tree}", f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert "features explained" not in out
    assert "features_explained" not in json.loads((tmp_path / "run/metrics.json").read_text())


def test_a_method_of_one_pass_has_no_loss_to_draw(uniad, tree, tmp_path):
    status, out, err = uniad("train", *FEATURES, "model=memory_bank", f"data.root={tree}", f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert not (tmp_path / "run/loss.png").exists()
    assert "features explained" not in out


def logged(folder, version, rows):
    path = folder / "logs" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("step,train/loss_step,mean/image_auroc\n" + rows)


def test_parts_of_a_resumed_run_are_one_curve_and_a_cut_row_is_left_out(tmp_path):
    draw_loss(tmp_path)
    assert not (tmp_path / "loss.png").exists()  # nothing is logged
    logged(tmp_path, 2, "19,0.5,\n29,0.4,")
    draw_loss(tmp_path)
    whole = (tmp_path / "loss.png").read_bytes()
    (tmp_path / "loss.png").unlink()
    (tmp_path / "logs/version_2/metrics.csv").unlink()
    (tmp_path / "logs/version_2").rmdir()
    logged(tmp_path, 2, "9")
    draw_loss(tmp_path)
    assert not (tmp_path / "loss.png").exists()
    logged(tmp_path, 0, "19,7.0,\n29,0.4,\n39,nan,\n4x,0.3,\n4")
    logged(tmp_path, 10, "19,0.5,\n2")  # later than version 2
    draw_loss(tmp_path)
    assert (tmp_path / "loss.png").read_bytes() == whole
