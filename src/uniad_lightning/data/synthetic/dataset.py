"""The embedded default data set: six procedural categories in colour with four kinds of defect and exact masks.

`drawings` draws them, `camera` photographs them, with a defect or as the flawless twin; the mask is where the two
differ. Light and colour vary more between good images than a defect changes one, pose and scale a little; only the
object's structure is constant. Written in the layout of MVTec AD. A larger image shows the same object in the same
pose and light.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from uniad_lightning.data.synthetic.camera import photograph, place
from uniad_lightning.data.synthetic.drawings import CATEGORIES
from uniad_lightning.data.synthetic.surface import Array
from uniad_lightning.errors import InputError, system_reason
from uniad_lightning.progress_bar import progress_bar

FORMAT_VERSION = 1
DEFECTS = ("deformation", "missing", "scratch", "stain")
SPLITS = ("train", "good", *DEFECTS)  # position is part of the random key: append, never reorder

_MARKER = "synthetic.json"
_VISIBLE = 7 / 255  # the difference from the flawless twin, in developed values, that counts as defect
_MIN_PIXELS = 24  # smallest mask at 128 x 128; a draw that shows less is drawn again
_ISLAND = 6  # smaller connected parts of a mask are rounding at the rim of a highlight, not defect


class Rendering(NamedTuple):
    """An image (H, W, 3) uint8, its flawless twin (H, W, 3) uint8, and the defect's mask (H, W) bool."""

    image: NDArray[np.uint8]
    flawless: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class _Planned(NamedTuple):
    """One image to write: its file, its mask's file if it is defective, and the arguments of `render`."""

    image: Path
    mask: Path | None
    category: str
    split: str
    number: int


def write_synthetic(
    root: Path,
    *,
    seed: int = 0,
    size: int = 128,
    train_images: int = 60,
    test_good: int = 20,
    test_per_defect: int = 8,
) -> Path:
    """Writes the data set in MVTec AD's layout, all of it or nothing; a complete one of the same arguments is reused.

    `root` must be missing, empty, or hold what these arguments wrote before; it is returned. `seed` is from 0, `size`,
    the image side in pixels, from 32, the numbers of images for each category (and kind of defect) from 1. Image i of a
    split is the same for any numbers. `synthetic.json` in the folder keeps the arguments.

    Raises InputError for an argument out of range, and a folder that cannot be written or holds something else.
    """
    least = {"seed": 0, "size": 32, "train_images": 1, "test_good": 1, "test_per_defect": 1}
    for name, given in zip(least, (seed, size, train_images, test_good, test_per_defect), strict=True):
        if given < least[name]:
            raise InputError(f"Synthetic data set: {name} is {given}, expected at least {least[name]}.")
    counts = {"train": train_images, "good": test_good, **dict.fromkeys(DEFECTS, test_per_defect)}
    root = Path(root).absolute()
    marker = {"format": FORMAT_VERSION, "seed": seed, "size": size, "images": counts}
    if not _is_written(root, marker):
        _write(root, marker)
    return root


def _write(root: Path, marker: dict[str, Any]) -> None:
    """Write the data set of `marker` beside `root`, and rename it to `root` when it is complete."""
    draft = root.parent / f".{root.name}.{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
        _fill(draft, marker["seed"], marker["size"], marker["images"])
        (draft / _MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        if not _is_written(root, marker):  # another process may have been faster
            _rename(draft, root, marker)
    except OSError as error:
        raise InputError(
            f"data.root={root}: the synthetic data set cannot be written; {system_reason(error)}"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _rename(draft: Path, root: Path, marker: dict[str, Any]) -> None:
    """Give a complete draft its name, unless another process has just done so with its own."""
    try:
        draft.rename(root)
    except OSError:
        if not _is_written(root, marker):
            raise


def _is_written(root: Path, marker: dict[str, Any]) -> bool:
    """Whether `root` holds the complete data set of `marker`; False where it is empty, InputError for anything else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        existing = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        existing = None
    if existing is None:
        fault = f"exists and is no synthetic data set (it has no readable {_MARKER})"
    elif existing != marker:
        fault = f"holds a synthetic data set of other arguments, {json.dumps(existing)}; asked for {json.dumps(marker)}"
    else:
        files = [path for planned in _plan(root, marker["images"]) for path in (planned.image, planned.mask) if path]
        lost = sum(not path.is_file() for path in files)
        fault = f"lacks {lost} of the {len(files)} files of its synthetic data set" if lost else ""
    if fault:
        raise InputError(f"{root} {fault}. Choose another folder.")
    return True


def _plan(root: Path, counts: dict[str, int]) -> Iterator[_Planned]:
    """Every image to write, category by category."""
    for category in CATEGORIES:
        for split, count in counts.items():
            folder = root / category / ("train/good" if split == "train" else f"test/{split}")
            masks = root / category / "ground_truth" / split
            for i in range(count):
                mask = masks / f"{i:03d}_mask.png" if split in DEFECTS else None
                yield _Planned(folder / f"{i:03d}.png", mask, category, split, i)


def _fill(root: Path, seed: int, size: int, counts: dict[str, int]) -> None:
    for planned in progress_bar("synthetic data", list(_plan(root, counts)), shown=None):
        drawn = render(planned.category, planned.split, planned.number, seed=seed, size=size)
        planned.image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.image).save(planned.image)
        if planned.mask:
            planned.mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.mask.astype(np.uint8) * 255).save(planned.mask)


def render(category: str, split: str, index: int, *, seed: int = 0, size: int = 128) -> Rendering:
    """Draws image `index` of a category's split, the same for the same arguments on every call.

    Args:
        category: a key of `CATEGORIES`.
        split: `train`, `good` (of the test set) or one of `DEFECTS`.
        index: number of the image within its split, from 0.
        seed: seed of the whole data set, from 0.
        size: image side in pixels.

    Returns:
        The image with its twin and mask; without a defect the twin is the image and the mask is empty.

    Raises:
        InputError: there is no such category or split.
    """
    for kind, name, known in (("category", category, tuple(CATEGORIES)), ("split", split, SPLITS)):
        if name not in known:
            raise InputError(f"No {kind} {name!r} in the synthetic data set; there are {', '.join(known)}.")
    key = (seed, list(CATEGORIES).index(category), SPLITS.index(split), index)
    clean, alpha = photograph(CATEGORIES[category], key, size, None)
    grain = np.random.default_rng((*key, 1))
    level = grain.uniform(0.005, 0.012)
    sensor = level * grain.standard_normal(clean.shape, dtype=np.float32)
    flawless = _to_bytes(clean + sensor)
    if split not in DEFECTS:
        return Rendering(flawless, flawless, np.zeros((size, size), bool))
    attempt = 0
    while True:  # ends, as every attempt is elsewhere and stronger than the last
        defect = place(split, clean, alpha, (*key, 2, attempt))
        image, _ = photograph(CATEGORIES[category], key, size, defect)
        mask = _difference(image, clean)
        if mask.sum() >= _MIN_PIXELS * (size / 128) ** 2:
            return Rendering(_to_bytes(image + sensor), flawless, mask)
        attempt += 1


def _to_bytes(image: Array) -> NDArray[np.uint8]:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _difference(image: Array, clean: Array) -> NDArray[np.bool_]:
    """Where two images (H, W, 3) differ visibly, closed over pinholes and without specks: (H, W) bool."""
    mask = np.abs(image - clean).max(axis=2) > _VISIBLE
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(mask, 2), iterations=1))[2:-2, 2:-2]
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes >= _ISLAND)[labels]
