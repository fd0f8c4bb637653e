"""model.patch of CutPaste: what it learns from, its map and score as rewritten, export, resuming, mistakes."""

import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from support.checkpoints import weights
from support.settings import FEATURES
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.defects.cutpaste import CutPaste
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.errors import InputError
from uniad_lightning.models.gaussian import ledoit_wolf

SMALL = [
    *FEATURES, "model=cutpaste", "model.hidden_dim=16", "model.num_layers=1", "model.projection_dim=8",
    "trainer.max_epochs=2", "data.augmentation.colour=0", "model.patch=32", "model.stride=16",
    "backbone.weights=tiny.safetensors",
]  # fmt: skip


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)


def test_patch_and_scar_are_those_of_a_square_of_the_image():
    corners, lengths = set(), []
    for seed in range(60):
        image = picture(seed)
        (good, none), (pasted, patch), (scarred, scar) = CutPaste(colour=0, patch=64)(
            image, np.random.default_rng(seed)
        )
        assert good.shape == pasted.shape == scarred.shape == (64, 64, 3)
        assert not none.any()
        for damaged, mask in ((pasted, patch), (scarred, scar)):
            assert mask.any()
            assert np.array_equal(damaged[~mask], good[~mask])
        (place,) = [
            (y, x)
            for y, x in zip(*np.nonzero((image == good[0, 0]).all(axis=2)), strict=True)
            if np.array_equal(image[y : y + 64, x : x + 64], good)
        ]
        corners.add(place)
        assert 0.018 < patch.mean() < 0.155
        ((rows, columns),) = ndimage.find_objects(scar.astype(int))
        lengths.append(max(rows.stop - rows.start, columns.stop - columns.start))
    assert len(corners) > 50
    assert 15 < max(lengths) < 36  # as in an image of 256 pixels, not a quarter of that


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("patches") / "run"
    keep = ["+callbacks.checkpoint.save_top_k=-1", 'callbacks.checkpoint.filename="at-{step}"']
    keep += ["callbacks.checkpoint.every_n_epochs=null", "callbacks.checkpoint.every_n_train_steps=3"]
    assert run_command("train", [*SMALL, f"data.root={tree}", f"output_dir={folder}", *keep]) == 0
    return folder


def embedded(module, path, stride):
    """Embeddings (h, w, C) of the patches of an image, each passed through the backbone alone, float64."""
    pixels = resize(read_image(path), (64, 64)).astype(np.float32) / 255
    scaled = torch.from_numpy((pixels - np.array(module.mean)) / np.array(module.std)).float().permute(2, 0, 1)
    places = range(0, 64 - 32 + 1, stride)
    with torch.no_grad():
        return np.stack(
            [
                [
                    np.concatenate(
                        [
                            level[0].double().numpy().mean(axis=(1, 2))
                            for level in module.backbone.model(scaled[None, :, y : y + 32, x : x + 32])
                        ]
                    )
                    for x in places
                ]
                for y in places
            ]
        )


def test_map_and_score_are_those_of_a_rewrite_on_the_trained_backbone(run, tree):
    detector = Detector.load(run / "checkpoints/last.ckpt")
    module = detector.engine.module
    train = [embedded(module, path, 16).reshape(-1, 64) for path in sorted(tree.glob("*/train/good/*"))]
    samples = np.concatenate(train)
    assert len(samples) == 18 * 9
    mean, inverse = samples.mean(axis=0), np.linalg.inv(ledoit_wolf(torch.from_numpy(samples)).numpy())
    for path in sorted(tree.glob("bottle/test/*/*"))[:3]:
        apart = embedded(module, path, 16) - mean
        scores = np.sqrt(np.einsum("yxc,cd,yxd->yx", apart, inverse, apart))  # (3, 3)
        total, weight = np.zeros((64, 64)), np.zeros((64, 64))
        line = np.exp(-(((np.arange(32) - 15.5) / 8) ** 2) / 2)
        for i, j in np.ndindex(3, 3):
            place = np.s_[16 * i : 16 * i + 32, 16 * j : 16 * j + 32]
            total[place] += scores[i, j] * np.outer(line, line)
            weight[place] += np.outer(line, line)
        found = detector.predict(path)
        assert np.allclose(found.scored_map, total / weight, rtol=2e-3)
        assert found.score == pytest.approx((total / weight).max(), rel=2e-3)


def test_it_is_measured_before_the_training_and_drawn(run):
    facts = json.loads((run / "metrics.json").read_text())
    assert 0 <= facts["untrained"]["image_auroc"] <= 1
    assert (run / "defects.png").is_file()


@pytest.mark.slow
def test_it_is_evaluated_used_and_exported_with_several_tiles_too(run, tree, tmp_path, uniad):
    last = run / "checkpoints/last.ckpt"
    image = sorted((tree / "bottle/test").rglob("*.png"))[0]
    for command, *more in (("evaluate",), ("export", f"output={tmp_path}/it.onnx")):
        status, _, err = uniad(command, f"ckpt_path={last}", f"output_dir={tmp_path}/{command}", *more)
        assert status == 0, err
    assert (tmp_path / "evaluate/results.csv").read_text() == (run / "results.csv").read_text()
    ours, theirs = (Detector.load(path).predict(image) for path in (last, tmp_path / "it.onnx"))
    assert np.allclose(ours.scored_map, theirs.scored_map, atol=1e-3 * np.ptp(ours.scored_map))
    words = [*SMALL, "data.framing.tiles=[1,2]", "trainer.max_epochs=1", f"data.root={tree}"]
    status, _, err = uniad("train", *words, f"output_dir={tmp_path}/tiles")
    assert status == 0, err
    found = Detector.load(tmp_path / "tiles").predict(image)
    assert found.score == pytest.approx(found.scored_map.max(), rel=1e-4)


def test_a_resumed_training_ends_with_the_same_weights(run, tree, tmp_path):
    middle = run / "checkpoints/at-step=3.ckpt"
    words = [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", f"ckpt_path={middle}"]
    assert run_command("train", words) == 0
    straight, resumed = weights(run), weights(tmp_path / "run")
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.patch=0", "model.patch=0: expected a whole number of at least 1"),
        ("model.patch=65", "model.patch=65: exceeds data.image_size=[64, 64]"),
        ("model.patch=4 model.stride=4", "model.patch=4: resnet18 has a stride of 8; expected 8 or more"),
        ("model.stride=0", "model.stride=0: expected a whole number of at least 1"),
        ("model.stride=15", "model.stride=15: patches of 32 pixels do not cover data.image_size=[64, 64]"),
        ("data.defects.patch=null", "data.defects: makes 2 versions of an image; CutPaste learns from a patch and a"),
        ("data.defects.patch=x", "data.defects.patch=x: expected a whole number of pixels, or null"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", *override.split())
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_a_square_that_is_larger_than_the_image_is_named():
    with pytest.raises(InputError, match="data.defects.patch=300: exceeds images of 256x256 pixels"):
        CutPaste(colour=0, patch=300)(picture(0), np.random.default_rng(0))


@pytest.mark.slow
def test_its_map_is_better_than_that_of_whole_images_on_the_synthetic_products(uniad, tmp_path):
    """Measured with a seed of 0: pixel AUROC 0.987."""
    words = ["experiment=demo", "model=cutpaste", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    more = ["model.patch=32", "model.stride=8", "trainer.max_epochs=16"]
    status, _, err = uniad("train", *words, *more, f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["pixel_auroc"] > 0.96
    assert mean["image_auroc"] > 0.96
