"""The systems that UniAD is compared with go the whole way: trained, evaluated, calibrated, exported, resumed."""

import subprocess

import numpy as np
import pytest
import torch

from support.checkpoints import weights
from support.journeys import use
from support.settings import UNIAD
from uniad_lightning import Detector

ANY = ["trainer=cpu", "trainer.max_epochs=3", "data.num_workers=0", "data.batch_size=4", "data.held_out=0.2"]
IMAGES = ["backbone=tiny", "backbone.weights=random", "model.grid=[8,8]", "data.image_size=64"]
METHODS = {
    "cutpaste": [  # with learned weights: of the tree's images random ones make embeddings that differ by rounding
        *IMAGES,
        "backbone.weights=tiny.safetensors",
        "model.hidden_dim=16",
        "model.num_layers=1",
        "model.projection_dim=8",
    ],
    "anovit": [*IMAGES, "model.sigma=2"],
    "panda": [*IMAGES, "model.frozen_modules=5", "optimizer.lr=1e-3"],
    "mkd": [*IMAGES, "model.scored_levels=2", "model.sigma=2", "optimizer.lr=1e-3"],
    "uninformed_students": [*IMAGES, "model.patch=17", "model.stride=1", "model.width=8", "model.teacher_share=0.34"],
    "fcdd": [*IMAGES, "model.frozen_modules=4", "model.field=16", "model.sigma=4"],
    "draem": [
        "data.image_size=64",
        "model.reconstructive_width=8",
        "model.discriminative_width=8",
        "optimizer.lr=1e-3",
    ],
    "intra": [
        "data.image_size=64",
        "model.patch_size=8",
        "model.window=3",
        "model.hidden_dim=32",
        "model.num_heads=2",
        "model.num_layers=3",
        "model.windows=4",
        "model.windows_at_once=40",
        "model.blur=5",
    ],
    "vt_adl": ["data.image_size=64", "model.hidden_dim=32", "model.num_heads=2", "model.num_layers=1", "model.sigma=2"],
}
EXPORTED = {*METHODS} - {"mkd"}
BATCH_NORM = {"cutpaste", "draem", "fcdd", "mkd", "vt_adl"}
methods = pytest.mark.parametrize("name", METHODS)
QUICK = {"mkd"}  # whose whole way every run of the tests goes; the others' is a slow test
ways = pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS])


def words(name, tree, folder, *more):
    return [f"model={name}", *ANY, *METHODS[name], f"data.root={tree}", f"output_dir={folder}", *more]


def run(*command):
    done = subprocess.run([UNIAD, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def runs(tree, tmp_path_factory):
    """Makes the run of a method, once."""
    made = {}

    def run_of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("runs") / name
            keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
            keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=4"]
            run("train", *words(name, tree, made[name], *keep))
        return made[name]

    return run_of


@ways
def test_it_is_evaluated_calibrated_used_and_exported(runs, name, tree, tmp_path, uniad):
    trained = runs(name)
    last = trained / "checkpoints/last.ckpt"
    use(uniad, trained, tree, tmp_path)
    image = sorted((tree / "bottle/test").rglob("*.png"))[0]
    ours = Detector.load(last).predict(image)
    assert ours.decision in ("good", "defective", "unknown")
    assert np.isfinite(ours.scored_map).all()
    status, _, err = uniad("export", f"ckpt_path={last}", f"output={tmp_path}/it.onnx", f"output_dir={tmp_path}/export")
    if name not in EXPORTED:
        assert status == 2
        assert len(err.strip().splitlines()) == 1
        return
    assert status == 0, err
    theirs = Detector.load(tmp_path / "it.onnx").predict(image)
    assert np.allclose(ours.scored_map, theirs.scored_map, atol=1e-4 * max(np.ptp(ours.scored_map), 1e-3))
    assert ours.decision == theirs.decision


@methods
@pytest.mark.slow
def test_it_resumes_in_the_middle_of_an_epoch_to_the_same_weights(runs, name, tree, tmp_path):
    middle = runs(name) / "checkpoints" / "at-step=4.ckpt"
    run("train", *words(name, tree, tmp_path / "run", f"ckpt_path={middle}"))
    straight, resumed = weights(runs(name)), weights(tmp_path / "run")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


@methods
@pytest.mark.slow
def test_two_processes_train_the_same(runs, name, tree, tmp_path):
    run("train", *words(name, tree, tmp_path / "run", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"))
    one, two = weights(runs(name)), weights(tmp_path / "run")
    assert one.keys() == two.keys()
    for key in one:
        if name in BATCH_NORM:  # whose statistics are those of a process's part of a batch: nearly the same
            assert torch.allclose(one[key].float().mean(), two[key].float().mean(), atol=0.5), key
        else:
            assert torch.allclose(one[key].float(), two[key].float(), atol=1e-3), key
