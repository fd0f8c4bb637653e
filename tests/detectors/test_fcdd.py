"""model=fcdd: parameters as published, the receptive field of a cell, losses as rewritten, what is frozen, mistakes."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.defects.confetti import Confetti, OutlierExposure
from uniad_lightning.detectors.fcdd import FCDD, heatmap_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.receptive_field import spread

SMALL = [*FEATURES, "model=fcdd", "model.frozen_modules=4", "model.field=16", "model.sigma=4", "trainer.max_epochs=2"]


def published():
    backbone = Backbone(name="vgg11_bn", levels=[3], grid=[28, 28], weights="random", trainable=True)
    return FCDD(
        backbone=backbone, optimizer=None, schedule=None, seed=0, grid=[28, 28], image_size=224, frozen_modules=15,
        field=62, sigma=12.0, outlier_exposure=None, pixel_loss=False,
    )  # fmt: skip


def test_parameters_are_those_of_table_a7():
    parameters = list(published().parameters())
    assert sum(p.numel() for p in parameters) == 4_504_833
    assert sum(p.numel() for p in parameters if not p.requires_grad) == 962_304
    assert sum(p.numel() for p in parameters if p.requires_grad) == 3_542_529


def test_the_receptive_field_is_the_configured_one_and_lies_in_the_middle_of_its_cell():
    module = published().eval()
    image = torch.zeros(1, 3, 224, 224, requires_grad=True)
    module.backbone.train()  # gradients through all pixels, whatever a ReLU does: average instead
    for part in module.backbone.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.constant_(part.weight, 1e-3)
            torch.nn.init.constant_(part.bias, 1e-3)
    module.backbone.eval()
    smooth = [part for part in module.backbone.model.named_modules() if isinstance(part[1], torch.nn.MaxPool2d)]
    for name, _ in smooth:
        module.backbone.model.set_submodule(name, torch.nn.AvgPool2d(2))  # a maximum has a gradient in one pixel alone
    module.backbone(image)[0, :, 13, 14].sum().backward()
    rows, columns = np.nonzero(image.grad[0].abs().sum(0).numpy())
    assert (rows.min(), rows.max() + 1 - rows.min()) == (13 * 8 + 4 - 31, 62)
    assert (columns.min(), columns.max() + 1 - columns.min()) == (14 * 8 + 4 - 31, 62)


def test_an_impulse_is_spread_as_a_gaussian_around_the_middle_of_its_cell():
    maps = torch.zeros(1, 6, 5)
    maps[0, 2, 3] = 1.0
    found = spread(maps, stride=8, field=22, sigma=5.0)[0]
    assert found.shape == (48, 40)
    y, x = np.mgrid[:48, :40]
    down, right = y - (2 * 8 + 3.5), x - (3 * 8 + 3.5)
    expected = np.exp(-(down**2 + right**2) / 50) * (np.maximum(abs(down), abs(right)) < 11)
    assert np.allclose(found.numpy(), 64 * expected / expected.sum(), atol=1e-5)
    inside = spread(torch.full((1, 8, 8), 3.0), stride=8, field=62, sigma=12.0)[0, 28:36, 28:36]
    assert float(inside.mean()) == pytest.approx(3.0, rel=0.01)


def test_the_loss_is_that_of_a_rewrite():
    deviation = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0))
    anomalous = torch.tensor([True, False, False, True])
    total = 0.0
    for values, is_anomalous in zip(deviation.double().numpy(), anomalous.tolist(), strict=True):
        total += -math.log(1 - math.exp(-values.mean())) if is_anomalous else values.mean()
    assert float(heatmap_loss(deviation, anomalous[:, None, None])) == pytest.approx(total / 4, rel=1e-6)
    assert heatmap_loss(torch.zeros(1, 2, 2), torch.tensor([[[True]]])).isfinite()
    assert float(heatmap_loss(torch.zeros(1, 2, 2), torch.tensor([[[False]]]))) == 0


def test_the_loss_at_pixels_is_that_of_a_rewrite():
    draws = torch.Generator().manual_seed(1)
    deviation = torch.rand(3, 4, 5, generator=draws).requires_grad_()
    anomalous = torch.rand(3, 4, 5, generator=draws) < 0.3
    anomalous[1] = False
    total = 0.0
    for values, marked in zip(deviation.tolist(), anomalous.tolist(), strict=True):
        pairs = [pair for row in zip(values, marked, strict=True) for pair in zip(*row, strict=True)]
        total += sum(value for value, is_marked in pairs if not is_marked) / 20
        if any(is_marked for _, is_marked in pairs):
            total -= math.log(1 - math.exp(-sum(value for value, is_marked in pairs if is_marked) / 20))
    loss = heatmap_loss(deviation, anomalous)
    assert loss.item() == pytest.approx(total / 3, rel=1e-6)
    loss.backward()
    assert deviation.grad.isfinite().all()
    assert (deviation.grad[anomalous] < 0).all()  # up at anomalous pixels, down at good ones
    assert (deviation.grad[~anomalous] > 0).all()


def test_the_loss_at_pixels_takes_the_upsampled_map_and_its_masks(tree, tmp_path):
    words = [*SMALL, "model.pixel_loss=true", "trainer.max_epochs=1", f"data.root={tree}"]
    assert run_command("train", [*words, f"output_dir={tmp_path}/run"]) == 0
    module = Detector.load(tmp_path / "run").engine.module
    draws = torch.Generator().manual_seed(0)
    damage = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    damage[0, 0, 10:30, 40:] = True
    batch = {"damaged": torch.randn(2, 1, 3, 64, 64, generator=draws), "damage": damage}
    with torch.no_grad():
        loss = float(module.loss(batch))
        maps = module.anomaly_map({"image": batch["damaged"][:, 0]}).double().numpy()
    inside, outside = maps[0][damage[0, 0].numpy()].sum() / 4096, maps[0][~damage[0, 0].numpy()].sum() / 4096
    expected = (outside - math.log(1 - math.exp(-inside)) + maps[1].mean()) / 2
    assert loss == pytest.approx(expected, rel=1e-4)


def test_frozen_modules_stay_and_map_and_score_are_those_of_a_rewrite(tree, tmp_path):
    assert run_command("train", [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run"]) == 0
    module = Detector.load(tmp_path / "run").engine.module
    fresh = run_command("train", [*SMALL, "trainer.max_epochs=1", f"data.root={tree}", f"output_dir={tmp_path}/less"])
    assert fresh == 0
    shorter = Detector.load(tmp_path / "less").engine.module
    same = {
        name: torch.equal(value, dict(shorter.backbone.named_parameters())[name])
        for name, value in module.backbone.named_parameters()
    }
    assert any(same.values())
    assert all(same[name] != value.requires_grad for name, value in module.backbone.named_parameters())
    frozen = [part for part in (module.frozen[1], shorter.frozen[1]) if isinstance(part, torch.nn.BatchNorm2d)]
    assert len(frozen) == 2  # its statistics are those of its own training
    assert all(torch.equal(a, b) for a, b in zip(*(part.buffers() for part in frozen), strict=True))
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = module.backbone(image).double()
        f = np.einsum("c,bchw->bhw", module.head.weight[0, :, 0, 0].double(), features) + float(module.head.bias)
        maps, scores = module.anomaly_map({"image": image}), module.image_scores({"image": image}, torch.zeros(2, 1, 1))
    deviation = np.sqrt(f**2 + 1) - 1
    assert (maps >= 0).all()
    assert np.allclose(scores.numpy(), deviation.mean(axis=(1, 2)), rtol=1e-4, atol=1e-7)
    full = spread(torch.from_numpy(deviation), stride=8, field=16, sigma=4.0)
    assert np.allclose(maps.numpy(), full.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("seed", range(10))
def test_confetti_stays_within_its_mask(seed):
    image = np.random.default_rng(seed).integers(60, 200, (112, 112, 3), dtype=np.uint8)
    ((damaged, mask),) = Confetti(share_good=0.0)(image, np.random.default_rng(seed))
    assert mask.any()
    assert not mask.all()
    assert np.abs(damaged[~mask].astype(int) - image[~mask]).max() <= 1
    assert (damaged[mask] != image[mask]).any(axis=1).mean() > 0.9
    ((untouched, none),) = Confetti(share_good=0.999999)(image, np.random.default_rng(seed))
    assert np.array_equal(untouched, image)
    assert not none.any()


def test_exposed_outliers_come_from_the_folder_at_the_image_s_size(tmp_path):
    Image.new("RGB", (9, 9), (200, 0, 0)).save(tmp_path / "outlier.png")
    outliers = OutlierExposure(folder=str(tmp_path), share_good=0.0)
    ((damaged, mask),) = outliers(np.zeros((20, 30, 3), dtype=np.uint8), np.random.default_rng(0))
    assert mask.all()
    assert (damaged == (200, 0, 0)).all()
    assert damaged.shape == (20, 30, 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="data.defects.folder=.*empty: holds no images"):
        OutlierExposure(folder=str(tmp_path / "empty"), share_good=0.0)(damaged, np.random.default_rng(0))


def test_outlier_exposure_trains_from_the_command_line(uniad, tree, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    words = [*SMALL, "data/defects=outliers", f"data.defects.folder={tmp_path}", f"data.root={tree}"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert (tmp_path / "run/defects.png").is_file()
    (tmp_path / "a.png").unlink()  # an evaluation needs no outliers
    status, _, err = uniad("evaluate", f"ckpt_path={tmp_path}/run", f"output_dir={tmp_path}/evaluate")
    assert status == 0, err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.frozen_modules=99", "model.frozen_modules=99: resnet18 has"),
        ("model.grid=[7,7]", "model.grid=[7, 7]: does not divide data.image_size=[64, 64]"),
        ("model.sigma=0", "model.sigma=0: expected more than 0"),
        ("data.defects=null", "data.defects=null: FCDD learns from synthetic defects; give data/defects=confetti"),
        ("data.defects.share_good=2", "data.defects.share_good=2: expected a number from 0 to below 1"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", override)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=fcdd", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["pixel_auroc"] > 0.6
