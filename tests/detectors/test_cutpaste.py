"""model=cutpaste: parameters as published, loss, distance and map as rewritten, the untrained control, mistakes."""

import json
import shutil

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.dataset import normalise
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.detectors.cutpaste import CutPasteDetector
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.gaussian import ledoit_wolf
from uniad_lightning.training.build import build_module

SMALL = [
    *FEATURES, "model=cutpaste", "model.hidden_dim=16", "model.num_layers=1", "model.projection_dim=8",
    "trainer.max_epochs=2", "data.augmentation.colour=0",
]  # fmt: skip


def published():
    backbone = Backbone(name="resnet18", levels=[4], grid=[8, 8], weights="random", trainable=True)
    return CutPasteDetector(
        backbone=backbone, optimizer=None, schedule=None, seed=0, grid=[8, 8], hidden_dim=512, num_layers=9,
        projection_dim=128,
    )  # fmt: skip


def test_parameters_are_those_of_table_a7():
    module = published()
    assert sum(p.numel() for p in module.backbone.parameters()) == 11_176_512
    assert sum(p.numel() for p in module.parameters()) == 13_611_203
    assert all(p.requires_grad for p in module.parameters())


def test_good_patch_and_scar_are_told_apart_in_one_batch():
    module = published().train()
    draw = torch.Generator().manual_seed(0)
    image, damaged = torch.randn(2, 3, 64, 64, generator=draw), torch.randn(2, 2, 3, 64, 64, generator=draw)
    with torch.no_grad():
        logits, kinds = module.classified({"image": image, "damaged": damaged})
        ordered = torch.stack([image[0], damaged[0, 0], damaged[0, 1], image[1], damaged[1, 0], damaged[1, 1]])
        expected = module.head(module.backbone(ordered).mean(dim=(2, 3)))
    assert kinds.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.allclose(logits, expected, atol=1e-5)


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cutpaste") / "run"
    assert run_command("train", [*SMALL, f"data.root={tree}", f"output_dir={folder}"]) == 0
    return folder


def embedded(module, paths):
    """Features (n, C, h, w) of images as an inspection has them, float64."""
    pixels = np.stack([resize(read_image(path), (64, 64)).astype(np.float32) / 255 for path in paths])
    scaled = (pixels - np.array(module.mean)) / np.array(module.std)
    with torch.no_grad():
        return module.backbone(torch.from_numpy(scaled).float().permute(0, 3, 1, 2)).double().numpy()


def test_distance_and_map_are_those_of_a_rewrite_on_the_trained_backbone(run, tree):
    detector = Detector.load(run / "checkpoints/last.ckpt")
    module = detector.engine.module
    train = sorted(tree.glob("*/train/good/*"))
    samples = embedded(module, train).mean(axis=(2, 3))
    mean, inverse = samples.mean(axis=0), np.linalg.inv(ledoit_wolf(torch.from_numpy(samples)).numpy())
    for path in sorted(tree.glob("bottle/test/*/*"))[:3]:
        features = embedded(module, [path])[0]
        apart = features.mean(axis=(1, 2)) - mean
        found = detector.predict(path)
        assert found.score == pytest.approx(np.sqrt(apart @ inverse @ apart), rel=1e-3)
        grid = np.einsum("chw,c->hw", features - mean[:, None, None], inverse @ apart)
        corners = [found.scored_map[y, x] for y in (0, -1) for x in (0, -1)]  # aligned with those of the grid
        assert np.allclose(corners, [grid[y, x] for y in (0, -1) for x in (0, -1)], atol=2e-3 * np.ptp(grid))


def test_the_control_is_what_a_rewrite_reaches_with_the_first_weights(run, tree):
    module = build_module(OmegaConf.load(run / "config.yaml"), announce=False).eval()
    samples = embedded(module, sorted(tree.glob("*/train/good/*"))).mean(axis=(2, 3))
    mean, inverse = samples.mean(axis=0), np.linalg.inv(ledoit_wolf(torch.from_numpy(samples)).numpy())
    found = []
    for category in ("bottle", "cable"):
        good, bad = (
            [embedded(module, [path])[0].mean(axis=(1, 2)) - mean for path in tree.glob(f"{category}/test/{kind}/*")]
            for kind in ("good", "[!g]*")
        )
        scores = [[apart @ inverse @ apart for apart in group] for group in (good, bad)]
        found.append(np.mean([high > low for low in scores[0] for high in scores[1]]))
    control = json.loads((run / "metrics.json").read_text())["untrained"]["image_auroc"]
    assert control == pytest.approx(np.mean(found), abs=1e-6)
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert float(state["control"]) == pytest.approx(control)
    assert state["gaussian.fitted"]


def test_the_control_is_printed_beside_the_result(uniad, tree, tmp_path):
    status, out, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run")
    assert status == 0, err
    control = json.loads((tmp_path / "run/metrics.json").read_text())["untrained"]["image_auroc"]
    assert f"before the training: image AUROC {100 * control:.1f}" in out


def test_without_defective_test_images_there_is_no_control_and_tiles_are_scored_by_the_worst(uniad, copy, tmp_path):
    for folder in [*copy.glob("*/test/[!g]*"), *copy.glob("*/ground_truth")]:
        shutil.rmtree(folder)
    words = [*SMALL, "data.framing.tiles=[1,2]", f"data.root={copy}", f"output_dir={tmp_path}/run"]
    status, out, err = uniad("train", *words)
    assert status == 0, err
    assert "before the training" not in out
    detector = Detector.load(tmp_path / "run/checkpoints/last.ckpt")
    image = read_image(next(copy.glob("bottle/test/good/*")))
    tiles = detector.engine.framing.tiles_of(image, (64, 64))
    pixels = normalise(tiles, detector.engine.mean, detector.engine.std)
    module = detector.engine.module
    with torch.no_grad():
        distances = module.gaussian(module.backbone(pixels))
    assert len(distances) == 2
    assert detector.predict(image).score == pytest.approx(float(distances.max()), rel=1e-3)


def test_a_checkpoint_from_within_a_training_is_refused(uniad, tree, tmp_path):
    keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
    keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=3"]
    assert uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", *keep)[0] == 0
    middle = tmp_path / "run/checkpoints/at-step=3.ckpt"
    for command, more in (("evaluate", ()), ("predict", (f"input={tree}/bottle/test",))):
        words = [f"ckpt_path={middle}", f"output_dir={tmp_path}/{command}", *more]
        status, _, err = uniad(command, *words)
        assert status == 2
        assert "is from within a training of CutPaste, whose Gaussian is fitted at the end" in err
        assert "Traceback" not in err


def test_it_is_evaluated_while_training(uniad, tree, tmp_path):
    words = [*SMALL, "validate_every=1", "callbacks=best_on_test", f"data.root={tree}", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *words)
    assert status == 0, err
    assert (tmp_path / "run/results.csv").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden_dim=0", "model.hidden_dim=0: expected a whole number of at least 1"),
        ("model.num_layers=-1", "model.num_layers=-1: expected a whole number of at least 0"),
        ("backbone.trainable=false", "backbone.trainable=false: CutPaste trains the backbone"),
        ("data.defects=null", "data.defects: makes 0 versions of an image; CutPaste learns from a patch and a scar"),
        ("data/defects=perlin", "data.defects: makes 1 versions of an image; CutPaste learns from a patch and a scar"),
        ("data.defects.colour=2", "data.defects.colour=2: expected a number from 0 to 1"),
        ("data.limit=1 data.categories=[bottle]", "train images are 1, too few for a covariance; expected at least 3"),
        ("optimizer.lr=1e9", "the loss is"),
        ("score=mean", "score=mean: CutPasteDetector does not use score; leave it out"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", *override.split())
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=cutpaste", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, "trainer.max_epochs=16", f"output_dir={tmp_path}/run")
    assert status == 0, err
    facts = json.loads((tmp_path / "run/metrics.json").read_text())
    assert facts["mean"]["image_auroc"] > 0.84
    assert facts["mean"]["pixel_auroc"] > 0.85
    assert facts["mean"]["image_auroc"] > facts["untrained"]["image_auroc"] + 0.05
