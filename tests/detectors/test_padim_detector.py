"""model=padim: maps as an independent rewrite makes them, online sums, two processes, parameters as counted."""

import subprocess

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from support.checkpoints import weights
from support.paths import SHARED
from support.settings import FEATURES, UNIAD
from support.trees import mvtec_tree
from uniad_lightning import Detector
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.data.images.tiling import Framing
from uniad_lightning.errors import InputError
from uniad_lightning.models.gaussian_grid import GaussianGrid
from uniad_lightning.scoring import smooth

PADIM = [*FEATURES, "model=padim", "model.dim=20", "model.sigma=2"]


def bilinear(distances, size):
    """(h, w) at `size` with pixels at the centres of their squares, as `align_corners=False`."""
    rows, columns = (
        np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1) for n, m in zip(size, distances.shape, strict=True)
    )
    low, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = (np.minimum(a + 1, m - 1) for a, m in zip((low, left), distances.shape, strict=True))
    y, x = (rows - low)[:, None], (columns - left)[None]
    top = distances[low][:, left] * (1 - x) + distances[low][:, right] * x
    bottom = distances[down][:, left] * (1 - x) + distances[down][:, right] * x
    return top * (1 - y) + bottom * y


def rewritten_map(module, train, test, size, sigma):
    """PaDiM (Defard et al. 2020, Sec. III) with NumPy alone, in float64."""

    def features(path):
        image = resize(read_image(path), size).astype(np.float32) / 255
        pixels = (image - np.array(module.mean)) / np.array(module.std)
        with torch.no_grad():
            found = module.backbone(torch.from_numpy(pixels).float().permute(2, 0, 1)[None])
        return found[0].double().numpy()[module.gaussians.channels.numpy()]  # (D, h, w)

    known, seen = np.stack([features(path) for path in train]), features(test)
    distances = np.zeros(seen.shape[1:])
    for i, j in np.ndindex(*distances.shape):
        samples = known[:, :, i, j]
        covariance = np.cov(samples, rowvar=False) + 0.01 * np.eye(samples.shape[1])
        apart = seen[:, i, j] - samples.mean(axis=0)
        distances[i, j] = np.sqrt(apart @ np.linalg.inv(covariance) @ apart)
    return gaussian_filter(bilinear(distances, size), sigma)


def trained(root, folder, words, size, sigma):
    """Predictions of two test images by a detector trained on `root`, each with its map rewritten."""
    last = folder / "run/checkpoints/last.ckpt"
    assert run_command("train", [*words, f"data.root={root}", f"output_dir={folder}/run"]) == 0
    detector = Detector.load(last)
    train = sorted((root / "screw/train/good").iterdir())  # whatever the images' format
    test = sorted((root / "screw/test").glob("*/*"))[:2]
    return [(detector.predict(path), rewritten_map(detector.engine.module, train, path, size, sigma)) for path in test]


def agree(found, expected):
    close = np.allclose(found.scored_map, expected, atol=2e-3 * np.ptp(expected))
    return close and found.score == pytest.approx(expected.max(), rel=2e-3)


def test_its_map_is_that_of_a_rewrite(tmp_path):
    root = mvtec_tree(tmp_path / "data", categories=["screw"], train=9, size=(64, 64))
    pairs = trained(root, tmp_path, PADIM, (64, 64), 2)
    assert len(pairs) == 2
    assert all(agree(*pair) for pair in pairs)


@pytest.mark.slow
@pytest.mark.skipif(
    not (SHARED / "data/industrial/screw").is_dir(), reason="the photographs of the project are not here"
)
def test_its_map_on_a_real_screw_is_that_of_a_rewrite(tmp_path):
    folder = tmp_path / "data/screw"
    (tmp_path / "data").mkdir()
    folder.symlink_to(SHARED / "data/industrial/screw")
    weights = f"backbone.weights={SHARED}/weights/tf_efficientnet_lite2.safetensors"
    words = ["model=padim", "model.grid=[14,14]", "trainer=cpu", "data.num_workers=0", "backbone=efficientnet_lite2"]
    words += [weights, "model.dim=50", "data.image_size=112"]
    pairs = trained(tmp_path / "data", tmp_path, words, (112, 112), 4)
    assert len(pairs) == 2
    assert all(agree(*pair) for pair in pairs)


@pytest.mark.slow
def test_two_processes_fit_the_same(tree, tmp_path):
    for name, more in (("one", []), ("two", ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"])):
        words = [*PADIM, "data.batch_size=4", f"data.root={tree}", f"output_dir={tmp_path}/{name}", *more]
        done = subprocess.run([UNIAD, "train", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in one.items():
        assert torch.allclose(value.float(), two[name].float(), rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize(
    ("backbone", "dim", "count"), [("wide_resnet50_2", 550, 950_364_800), ("resnet18", 100, 31_673_600)]
)
def test_parameters_are_those_of_table_a7(backbone, dim, count):
    channels = {"wide_resnet50_2": 256 + 512 + 1024, "resnet18": 64 + 128 + 256}[backbone]
    gaussians = GaussianGrid(channels=channels, grid=56, dim=dim, regularization=0.01, seed=0, megabytes=16)
    assert gaussians.num_parameters == count


@pytest.mark.parametrize("sigma", [0.5, 2.0, 4.0])
def test_smoothing_is_that_of_scipy(sigma):
    maps = torch.rand(3, 40, 33, generator=torch.Generator().manual_seed(0))
    expected = np.stack([gaussian_filter(m.double().numpy(), sigma) for m in maps])
    assert np.allclose(smooth(maps, sigma).numpy(), expected, atol=1e-6)


def test_smoothing_refuses_what_reaches_beyond_the_map_and_leaves_all_at_zero():
    maps = torch.rand(1, 8, 30)
    assert torch.equal(smooth(maps, 0), maps)
    with pytest.raises(InputError, match="model.sigma=4: reaches 16 pixels, more than the map"):
        smooth(maps, 4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.dim=1000", "model.dim=1000: expected from 1 to"),
        ("model.dim=true", "model.dim=True: expected from 1 to"),
        ("model.regularization=abc", "model.regularization=abc: expected more than 0"),
        ("model.megabytes=inf", "model.megabytes=inf: expected more than 0"),
        ("model.sigma=inf", "model.sigma=inf: expected at least 0"),
        ("model.sigma=1000", "model.sigma=1000: reaches 4000 pixels, more than the map (64, 64) has"),
        ("score=mean", "score=mean: PadimDetector does not use score; leave it out"),
        ("data.limit=1 data.categories=[bottle]", "1 train image, of which there is no covariance"),
    ],
)
def test_mistakes_are_one_line(uniad, tree, tmp_path, override, message):
    status, _, err = uniad("train", *PADIM, f"data.root={tree}", f"output_dir={tmp_path}/run", *override.split())
    assert status == 2
    assert message in err
    assert "Traceback" not in err


def test_tiles_of_full_size_maps_are_put_together_in_little_memory():
    framing = Framing(region=None, tiles=[2, 2], overlap=0.1, ignore=None)
    maps = torch.rand(8, 150, 140, generator=torch.Generator().manual_seed(0))
    down, across = (framing._blend(size, 2).double() for size in maps.shape[-2:])
    tiles = maps[:4].unflatten(0, (2, 2)).double()
    expected = sum(down[a] @ tiles[a, c] @ across[c].T for a in range(2) for c in range(2))
    assert torch.allclose(framing.stitch(maps)[0].double(), expected, atol=1e-5)
