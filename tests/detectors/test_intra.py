"""model=intra: losses, windows, map and mean map as rewrites have them, what it refuses, that it learns."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.detectors.intra import InTra
from uniad_lightning.models.gradient_similarity import gradient_similarity
from uniad_lightning.models.structural_similarity import ssim
from uniad_lightning.randomness import seed_step

SIZES = {"image_size": [32, 40], "patch_size": 8, "window": 3, "hidden_dim": 16, "num_heads": 2, "num_layers": 2}
REST = {"windows": 6, "windows_at_once": 7, "gradient_weight": 0.5, "structure_weight": 0.25, "blur": 5}


def detector(**more):
    torch.manual_seed(0)
    return InTra(optimizer=torch.optim.AdamW, schedule=None, seed=0, **{**SIZES, **REST, **more})


def painted_one_by_one(module, image):
    """Each patch of an image (3, H, W) painted alone from the window around it."""
    result, size, window = image.clone(), module.patch_size, module.window
    for t, c in np.ndindex(*module.grid):
        top = min(max(0, t - window // 2), module.grid[0] - window)
        left = min(max(0, c - window // 2), module.grid[1] - window)
        cells = [(y, x) for y in range(top, top + window) for x in range(left, left + window)]
        patches = [image[:, y * size : (y + 1) * size, x * size : (x + 1) * size].flatten() for y, x in cells]
        places = torch.tensor([[y * module.grid[1] + x for y, x in cells]])
        with torch.no_grad():
            found = module.network(torch.stack(patches)[None], places, torch.tensor([cells.index((t, c))]))
        result[:, t * size : (t + 1) * size, c * size : (c + 1) * size] = found.view(3, size, size)
    return result


def test_each_patch_is_painted_from_the_window_around_it_however_many_at_once():
    image = torch.rand(2, 3, 32, 40)
    for at_once in (1, 7, 100):
        module = detector(windows_at_once=at_once)
        with torch.no_grad():
            found = module.inpaint(image)
        expected = torch.stack([painted_one_by_one(module, part) for part in image])
        assert torch.allclose(found, expected, atol=1e-5)


def test_windows_are_drawn_all_over_the_grid_for_each_sample_alone():
    module = detector(windows=400)
    seed_step(seed=0, epoch=0, step=0, rank=0)
    places, masked = module.draw_windows(2)
    assert places.shape == (2, 400, 9)
    assert sorted(set(places[..., 0].flatten().tolist())) == [0, 1, 2, 5, 6, 7]  # of 4 x 5 patches
    assert sorted(set(masked.flatten().tolist())) == list(range(9))
    assert places.max() == 19
    seed_step(seed=0, epoch=0, step=0, rank=1)
    second_rank = module.draw_windows(1)
    assert torch.equal(second_rank[0][0], places[1])
    assert torch.equal(second_rank[1][0], masked[1])


def test_the_loss_is_that_of_a_rewrite():
    module = detector()
    image = torch.rand(2, 3, 32, 40)
    seed_step(seed=0, epoch=0, step=0, rank=0)
    places, masked = module.draw_windows(2)
    squares, edges, structure = [], [], []
    with torch.no_grad():
        for b, w in np.ndindex(2, 6):
            cut = [image[b, :, p // 5 * 8 : p // 5 * 8 + 8, p % 5 * 8 : p % 5 * 8 + 8] for p in places[b, w].tolist()]
            seen = torch.stack([part.flatten() for part in cut])[None]
            found = module.network(seen, places[b, w][None], masked[b, w][None]).view(1, 3, 8, 8)
            target = cut[masked[b, w]][None]
            squares.append(float((found - target).square().mean()))
            edges.append(float(1 - gradient_similarity(found, target).mean()))
            structure.append(float(1 - ssim(found, target).mean()))
    seed_step(seed=0, epoch=0, step=0, rank=0)
    loss, parts = module.losses(image)
    expected = np.mean(squares) + 0.5 * np.mean(edges) + 0.25 * np.mean(structure)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert parts["mse"].item() == pytest.approx(np.mean(squares), rel=1e-4)


def test_map_and_score_are_the_rewrite_less_the_mean_of_the_train_images(tree, tmp_path):
    words = ["model=intra", "trainer=cpu", "data.image_size=48", "data.num_workers=0", "data.batch_size=4"]
    words += ["model.patch_size=8", "model.window=3", "model.hidden_dim=16", "model.num_heads=2", "model.num_layers=2"]
    words += ["model.windows=3", "model.blur=5", "trainer.max_epochs=1", "data.eval_batch_size=4"]
    assert run_command("train", [*words, f"data.root={tree}", f"output_dir={tmp_path}/run"]) == 0
    detector = Detector.load(tmp_path / "run")
    module = detector.engine.module

    def dissimilar(path):
        image = torch.from_numpy(resize(read_image(path), (48, 48)).astype(np.float32) / 255).permute(2, 0, 1)
        alike = gradient_similarity(image[None], painted_one_by_one(module, image)[None])[0].double().numpy()
        outside = uniform_filter(np.ones((48, 48)), 5, mode="constant")
        return uniform_filter(1 - alike, 5, mode="constant") / outside

    train = [path for name in ("bottle", "cable") for path in sorted((tree / name / "train/good").iterdir())]
    assert len(train) == 18
    mean = np.mean([dissimilar(path) for path in train], axis=0)
    assert np.allclose(module.mean_map.numpy(), mean, atol=1e-4)
    test = sorted((tree / "bottle/test").glob("*/*"))[0]
    found = detector.predict(test)
    assert np.allclose(found.scored_map, dissimilar(test) - mean, atol=1e-4)
    assert found.score == pytest.approx((dissimilar(test) - mean).max(), abs=1e-4)


def test_mistakes_are_one_line(uniad, tree, tmp_path):
    for override, message in (
        ("data.image_size=60", "data.image_size=[60, 60]: expected multiples of model.patch_size=16"),
        ("model.window=5", "model.window=5: larger than the 4 x 4 patches of an image"),
        ("model.blur=4", "model.blur=4: expected an odd number of pixels"),
        ("model.windows=0", "model.windows=0: expected a whole number of at least 1"),
        ("model.gradient_weight=-1", "model.gradient_weight=-1: expected at least 0"),
        ("backbone=tiny", "backbone=tiny: InTra does not use backbone; leave it out"),
        ("data.cache=disk", "data.cache=disk: InTra works on images, and has no features to keep"),
    ):
        words = ["model=intra", "trainer=cpu", "data.image_size=64", "data.num_workers=0", "model.window=3"]
        status, _, err = uniad("train", *words, f"data.root={tree}", f"output_dir={tmp_path}/run", override)
        assert status == 2
        assert message in err
        assert "Traceback" not in err


@pytest.mark.slow
def test_it_learns_on_the_synthetic_products(uniad, tmp_path):
    words = ["experiment=demo", "model=intra", "data.categories=[fabric,tile]", f"data.root={tmp_path}/data"]
    status, _, err = uniad("train", *words, "trainer.max_epochs=15", f"output_dir={tmp_path}/run")
    assert status == 0, err
    mean = json.loads((tmp_path / "run/metrics.json").read_text())["mean"]
    assert mean["image_auroc"] > 0.75
    assert mean["pixel_auroc"] > 0.75
