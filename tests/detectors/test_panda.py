"""model=panda: without steps plain nearest neighbours, the loss and its center as rewritten, what learns, mistakes."""

import json

import numpy as np
import pytest
import torch

from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.errors import InputError

SMALL = [*FEATURES, "model=panda", "model.frozen_modules=5", "trainer.max_epochs=2"]


def trained(tree, folder, *more):
    assert run_command("train", [*SMALL, f"data.root={tree}", f"output_dir={folder}", *more]) == 0
    return Detector.load(folder).engine.module


def pooled(module, paths):
    """Features of images (n, C) in float64, and their maps (n, C, h, w)."""
    images = [resize(read_image(path), (64, 64)).astype(np.float32) / 255 for path in paths]
    pixels = (np.stack(images) - np.array(module.mean)) / np.array(module.std)
    with torch.no_grad():
        maps = module.backbone(torch.from_numpy(pixels).float().permute(0, 3, 1, 2)).double().numpy()
    return maps.mean(axis=(2, 3)), maps


def paths_of(tree):
    train = sorted(tree.glob("*/train/good/*"))
    return train, sorted(tree.glob("*/test/*/*"))


def test_at_a_learning_rate_of_0_it_is_plain_nearest_neighbours(tree, tmp_path):
    module = trained(tree, tmp_path / "run", "optimizer.lr=0")
    train, test = paths_of(tree)
    (known, _), (found, maps) = pooled(module, train), pooled(module, test)
    assert np.allclose(module.bank.numpy(), known, atol=1e-5)
    assert np.allclose(module.center.numpy(), known.mean(axis=0), atol=1e-5)
    apart = ((found[:, None] - known[None]) ** 2).sum(axis=2)
    expected = np.sort(apart, axis=1)[:, :2].sum(axis=1)
    detector = Detector.load(tmp_path / "run")
    scores = [detector.predict(path).score for path in test]
    assert np.allclose(scores, expected, rtol=1e-3, atol=1e-6)
    places = maps[0].reshape(len(known[0]), -1).T  # (N, C)
    near = np.sort(((places[:, None] - known[None]) ** 2).sum(axis=2), axis=1)[:, :2].sum(axis=1)
    batch = {"feature": torch.from_numpy(maps[:1]).float()}
    with torch.no_grad():
        assert np.allclose(module.anomaly_map(batch).flatten().numpy(), near, rtol=1e-3)


def test_the_loss_is_that_of_a_rewrite(tree, tmp_path):
    module = trained(tree, tmp_path / "run")
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    reported = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uniad_lightning.detectors.panda.report_loss", lambda _, loss, **rest: reported.append(loss))
        module.training_step({"image": images}, 0)
    with torch.no_grad():
        features = module.backbone(images).double().mean(dim=(2, 3)).numpy()
    expected = np.mean([((row - module.center.numpy()) ** 2).sum() for row in features])
    assert float(reported[0].detach()) == pytest.approx(expected, rel=1e-4)


def test_only_the_last_modules_learn_and_features_draw_together(tree, tmp_path):
    before, after = (
        trained(tree, tmp_path / "none", "optimizer.lr=0"),
        trained(tree, tmp_path / "run", "optimizer.lr=1"),
    )
    first, last = dict(before.backbone.named_parameters()), dict(after.backbone.named_parameters())
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert changed == {name for name, parameter in last.items() if parameter.requires_grad}
    assert 0 < len(changed) < len(first)
    for (name, old), (_, new) in zip(before.named_buffers(), after.named_buffers(), strict=True):
        assert name == "bank" or torch.equal(old, new), name  # batch norms keep their statistics
    train, _ = paths_of(tree)

    def spread(module):
        return ((pooled(module, train)[0] - module.center.numpy()) ** 2).sum(axis=1).mean()

    assert spread(after) < spread(before)


def test_an_empty_bank_is_named(tree, tmp_path):
    module = trained(tree, tmp_path / "run")
    module.bank = torch.empty(0, module.bank.shape[1])
    with pytest.raises(InputError, match="the bank of PANDA is empty; resume it"):
        module.distance(torch.zeros(1, 1, module.bank.shape[1]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.frozen_modules=6", "model.frozen_modules=6: leaves nothing of resnet18 to learn"),
        ("model.frozen_modules=7", "model.frozen_modules=7: resnet18 has 6 modules"),
        ("model.neighbors=0", "model.neighbors=0: expected a whole number of at least 1"),
        ("model.neighbors=50", "18 train images; PANDA needs at least 50"),
        ("backbone.trainable=false", "backbone.trainable=false: this method trains its backbone; leave it out"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", override)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=panda", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, "trainer.max_epochs=5", f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["image_auroc"] > 0.55
