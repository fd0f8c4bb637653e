"""A method of the user's own, outside the package, goes the whole way: a class and a YAML file are all it takes."""

import csv
import os
import subprocess

import numpy as np
import pytest
import torch

from support.checkpoints import weights
from support.settings import UNIAD
from uniad_lightning import Detector

CLASS = '''
"""An autoencoder of pixels, its halves trained by an optimizer each."""

import torch
from torch import nn

from uniad_lightning.detectors.base import AnomalyModule


class Pixels(AnomalyModule):
    def __init__(self, *, width, lr, score, seed):
        super().__init__(score=score, seed=seed)
        self.encoder = nn.Conv2d(3, width, 4, stride=4)
        self.decoder = nn.ConvTranspose2d(width, 3, 4, stride=4)
        self.lr = lr
        self.automatic_optimization = False

    def error(self, image):
        return (self.decoder(self.encoder(image)) - image).square().mean(dim=1)

    def training_step(self, batch, batch_idx):
        noisy = batch["image"] + 0.1 * torch.randn_like(batch["image"])
        loss = self.error(noisy).mean()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()
        self.log("train/loss_step", loss)
        return loss

    def anomaly_map(self, batch):
        return self.error(batch["image"])

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), self.lr) for part in (self.encoder, self.decoder)]
'''
MODEL = "_target_: pixels.Pixels\nwidth: 4\nlr: 0.01\n"
METHOD = "# @package _global_\ntrainer:\n  gradient_clip_val: null\n"


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder of the class, and of the YAML files."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "pixels.py").write_text(CLASS)
    for name, text in (("model", MODEL), ("method", METHOD)):
        (folder / "conf" / name).mkdir(parents=True)
        (folder / "conf" / name / "pixels.yaml").write_text(text)
    return folder


def words(own, tree, folder, *more):
    return [
        f"--config-dir={own}/conf", "model=pixels", "trainer=cpu", "trainer.max_epochs=3", "data.image_size=64",
        "data.batch_size=4", "data.num_workers=0", "data.held_out=0.2", f"data.root={tree}",
        f"output_dir={folder}", "trainer.log_every_n_steps=1", *more,
    ]  # fmt: skip


def run(own, *command):
    env = {**os.environ, "PYTHONPATH": str(own), "UNIAD_TRUST": "pixels"}
    done = subprocess.run([UNIAD, *command], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def trained(own, tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
    keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=4"]
    run(own, "train", *words(own, tree, folder, *keep))
    return folder


def test_the_class_is_short():
    assert len(CLASS.strip().splitlines()) < 40


def test_it_is_trained_as_long_as_asked_and_leaves_what_every_training_leaves(trained):
    checkpoint = torch.load(trained / "checkpoints/last.ckpt", weights_only=True)
    done = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
    assert done == 9  # 3 epochs of 3 batches, whatever two optimizers count
    assert checkpoint["global_step"] == 18
    assert not {"backbone", "loss", "optimizer", "schedule", "standardize"} & checkpoint["config"].keys()
    assert {"metrics.json", "results.csv", "heatmaps", "logs", "config.yaml"} <= {p.name for p in trained.iterdir()}
    with next((trained / "logs").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert any(row.get("train/loss_step") for row in rows)


@pytest.mark.slow
def test_it_resumes_in_the_middle_of_an_epoch_to_the_same_weights(own, tree, trained, tmp_path):
    middle = trained / "checkpoints" / "at-step=8.ckpt"
    assert (
        torch.load(middle, weights_only=True)["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 1
    )
    run(own, "train", *words(own, tree, tmp_path / "run", f"ckpt_path={middle}"))
    straight, resumed = weights(trained), weights(tmp_path / "run")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.slow
def test_two_processes_train_the_same(own, tree, trained, tmp_path):
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    run(own, "train", *words(own, tree, tmp_path / "run", *ddp))
    straight, shared = weights(trained), weights(tmp_path / "run")
    for name in straight:  # noise differs between processes, so nearly and not exactly
        assert torch.allclose(straight[name], shared[name], atol=0.05), name


@pytest.mark.slow
def test_it_is_evaluated_calibrated_used_and_exported(own, tree, trained, tmp_path, uniad, monkeypatch):
    monkeypatch.syspath_prepend(str(own))
    monkeypatch.setenv("UNIAD_TRUST", "pixels")
    last = trained / "checkpoints/last.ckpt"
    for command, *more in (
        ("evaluate",),
        ("calibrate", "rate=0.3"),
        ("predict", f"input={tree}/bottle/test"),
        ("export", f"output={tmp_path}/pixels.onnx"),
    ):
        status, _, err = uniad(command, f"ckpt_path={last}", f"output_dir={tmp_path}/{command}", *more)
        assert status == 0, err
    assert (tmp_path / "evaluate/results.csv").read_text() == (trained / "results.csv").read_text()
    with (tmp_path / "predict/predictions.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5
    image = sorted((tree / "bottle/test").rglob("*.png"))[0]
    ours, theirs = (Detector.load(path, trust="pixels").predict(image) for path in (last, tmp_path / "pixels.onnx"))
    assert ours.scored_map.shape == (64, 64)
    assert np.allclose(ours.scored_map, theirs.scored_map, atol=1e-5 * np.ptp(ours.scored_map))
    assert ours.decision == theirs.decision
    assert ours.decision in ("good", "defective")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer.lr=0.1", "optimizer.lr=0.1: Pixels does not use optimizer; leave it out"),
        ("standardize=true", "standardize=true: Pixels does not use standardize; leave it out"),
        ("backbone=resnet18", "backbone=resnet18: Pixels does not use backbone; leave it out"),
        ("trainer.max_steps=5", "trainer.max_steps=5: Pixels steps its optimizers itself; give trainer.max_steps=-1"),
        ("trainer.accumulate_grad_batches=2", "steps its optimizers itself; give trainer.accumulate_grad_batches=1"),
        ("data.cache=disk", "data.cache=disk: Pixels works on images, and has no features to keep"),
        ("model._target_=pixels.Nothing", "model._target_=pixels.Nothing: "),
    ],
)
def test_what_it_has_no_use_for_is_refused_with_the_reason(own, tree, tmp_path, command, monkeypatch, override, said):
    monkeypatch.syspath_prepend(str(own))
    status, _, err = command("train", *words(own, tree, tmp_path / "run", override))
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_precisions_that_it_does_not_promise_are_refused(own, trained, tmp_path, command, monkeypatch):
    monkeypatch.syspath_prepend(str(own))
    monkeypatch.setenv("UNIAD_TRUST", "pixels")
    last = trained / "checkpoints/last.ckpt"
    status, _, err = command("export", f"ckpt_path={last}", "precision=fp16", f"output_dir={tmp_path}")
    assert status == 2
    assert "precision=fp16: Pixels is exported as fp32" in err
