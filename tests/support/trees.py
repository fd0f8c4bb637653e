"""Tiny data sets for the tests in the layouts of MVTec AD and CIFAR-10, the same every time."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def mvtec_tree(
    root: Path,
    *,
    categories: Sequence[str] = ("bottle", "cable"),
    train: int = 4,
    good: int = 2,
    defects: Mapping[str, int] | None = None,
    size: tuple[int, int] = (32, 32),
    suffix: str = ".png",
    seed: int = 0,
) -> Path:
    """Writes the MVTec-AD layout below `root` and returns it.

    A good image is its category's colour gradient with faint noise; a defective one has a rectangle of the opposite
    colour as well, a quarter of each side long, which is the mask.

    Args:
        root: made when missing.
        categories: folders to write.
        train: good training images of each category.
        good: good test images of each category.
        defects: kinds of defect with their number of images in each category; `{"scratch": 2, "hole": 1}` if None.
        size: (height, width) of every image and mask.
        suffix: of the images, with its dot; masks are PNG.
        seed: of the noise and of where the defects are.
    """
    rng = np.random.default_rng(seed)
    for position, category in enumerate(categories):
        base = _gradient(position, size)
        for split, number in (("train", train), ("test", good)):
            for index in range(number):
                _write(root / category / split / "good" / f"{index:03d}{suffix}", _noisy(base, rng))
        for defect, number in ({"scratch": 2, "hole": 1} if defects is None else defects).items():
            for index in range(number):
                mask = _rectangle(size, rng)
                image = _noisy(np.where(mask[:, :, None], 255 - base, base), rng)
                _write(root / category / "test" / defect / f"{index:03d}{suffix}", image)
                truth = root / category / "ground_truth" / defect / f"{index:03d}_mask.png"
                _write(truth, mask.astype(np.uint8) * 255)
    return root


def _gradient(position: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float from dark to bright along both axes, in the colour of the category at `position`."""
    height, width = size
    slope = np.add.outer(np.linspace(20, 60, height), np.linspace(0, 40, width))
    colour = np.roll([1.0, 0.6, 0.3], position)
    return slope[:, :, None] * colour


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` with noise of 2 grey levels, as uint8."""
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def _rectangle(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool, True in a rectangle a quarter of each side long, at least one pixel, somewhere inside."""
    height, width = (max(1, side // 4) for side in size)
    top, left = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def cifar10_arrays(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (count, 3072) uint8, red then green then blue, and labels (count,) int64 that take turns."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), np.arange(count) % 10


def cifar10_python(root: Path, *, count: int = 20) -> Path:
    """Writes `cifar-10-batches-py` with `count` images a batch below `root` and returns `root`."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (images, labels) in _cifar10_batches(count):
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": labels.tolist(), "batch_label": name}))
    return root


def cifar10_binary(root: Path, *, count: int = 20) -> Path:
    """Writes `cifar-10-batches-bin` with the same images and returns `root`."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (images, labels) in _cifar10_batches(count):
        (folder / f"{name}.bin").write_bytes(np.column_stack([labels.astype(np.uint8), images]).tobytes())
    return root


def _cifar10_batches(count: int) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return [(name, cifar10_arrays(count, seed=seed)) for seed, name in enumerate(names)]
