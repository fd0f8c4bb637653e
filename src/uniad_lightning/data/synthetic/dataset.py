"""The embedded default data set: six procedural products in colour with four kinds of defect and exact masks.

`products` draws them, `camera` photographs them, with a defect or as the flawless twin; the mask is where the two
differ. Light and colour vary more between good pictures than a defect changes one, pose and scale a little; only the
product's structure is constant. Written as MVTec AD is laid out. A larger picture shows the same product in the same
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
from tqdm import tqdm

from uniad_lightning.data.synthetic.camera import photograph, place
from uniad_lightning.data.synthetic.products import PRODUCTS
from uniad_lightning.data.synthetic.surface import Array
from uniad_lightning.errors import InputError, system_reason

FORMAT_VERSION = 1
DEFECTS = ("deformation", "missing", "scratch", "stain")
SPLITS = ("train", "good", *DEFECTS)  # position is part of the random key: append, never reorder

_MARKER = "synthetic.json"
_VISIBLE = 7 / 255  # the difference from the flawless twin, in developed values, that counts as defect
_MIN_PIXELS = 24  # smallest mask at 128 x 128; a draw that shows less is drawn again
_ISLAND = 6  # smaller connected parts of a mask are rounding at the rim of a highlight, not defect


class Rendering(NamedTuple):
    """A picture (H, W, 3) uint8, its flawless twin (H, W, 3) uint8, and the defect's mask (H, W) bool."""

    image: NDArray[np.uint8]
    flawless: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class _Picture(NamedTuple):
    """One picture to write: its file, its mask's file if it is defective, and what to render."""

    image: Path
    mask: Path | None
    product: str
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

    Picture i of a split is the same whatever the counts. `synthetic.json` in the folder keeps the arguments.

    Args:
        root: folder to write; it must be missing, empty, or hold what these arguments wrote before.
        seed: seed of the whole data set, from 0.
        size: image side in pixels, from 32.
        train_images: good pictures per product to train on, from 1.
        test_good: good pictures per product in the test set, from 1.
        test_per_defect: pictures per product and kind of defect, from 1.

    Returns:
        `root`.

    Raises:
        InputError: an argument is out of range, the folder cannot be written or holds something else.
    """
    least = {"seed": 0, "size": 32, "train_images": 1, "test_good": 1, "test_per_defect": 1}
    for name, got in zip(least, (seed, size, train_images, test_good, test_per_defect), strict=True):
        if got < least[name]:
            raise InputError(f"Synthetic data set: {name} is {got}, expected at least {least[name]}.")
    counts = {"train": train_images, "good": test_good, **dict.fromkeys(DEFECTS, test_per_defect)}
    root = Path(root).absolute()
    marker = {"format": FORMAT_VERSION, "seed": seed, "size": size, "images": counts}
    if _is_written(root, marker):
        return root
    draft = root.parent / f".{root.name}.{uuid.uuid4().hex[:8]}"
    try:
        draft.mkdir(parents=True)
        _fill(draft, seed, size, counts)
        (draft / _MARKER).write_text(json.dumps(marker, indent=2) + "\n")
        if not _is_written(root, marker):  # another process may have been faster
            draft.rename(root)
    except OSError as error:
        raise InputError(
            f"data.root={root}: the synthetic data set cannot be written; {system_reason(error)}"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def _is_written(root: Path, marker: dict[str, Any]) -> bool:
    """Whether the complete data set of `marker` is there; False where nothing is, an error where something else is."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found is None:
        fault = f"exists and is no synthetic data set (it has no readable {_MARKER})"
    elif found != marker:
        fault = f"holds a synthetic data set of other arguments, {json.dumps(found)}; asked for {json.dumps(marker)}"
    else:
        files = [path for todo in _plan(root, marker["images"]) for path in (todo.image, todo.mask) if path]
        lost = sum(not path.is_file() for path in files)
        fault = f"lacks {lost} of the {len(files)} files of its synthetic data set" if lost else ""
    if fault:
        raise InputError(f"{root} {fault}. Choose another folder.")
    return True


def _plan(root: Path, counts: dict[str, int]) -> Iterator[_Picture]:
    """Every picture to write, product by product."""
    for product in PRODUCTS:
        for split, count in counts.items():
            folder = root / product / ("train/good" if split == "train" else f"test/{split}")
            masks = root / product / "ground_truth" / split
            for i in range(count):
                mask = masks / f"{i:03d}_mask.png" if split in DEFECTS else None
                yield _Picture(folder / f"{i:03d}.png", mask, product, split, i)


def _fill(root: Path, seed: int, size: int, counts: dict[str, int]) -> None:
    for todo in tqdm(list(_plan(root, counts)), "synthetic data", unit="image", disable=None):
        drawn = render(todo.product, todo.split, todo.number, seed=seed, size=size)
        todo.image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.image).save(todo.image)
        if todo.mask:
            todo.mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.mask.astype(np.uint8) * 255).save(todo.mask)


def render(product: str, split: str, index: int, *, seed: int = 0, size: int = 128) -> Rendering:
    """Draws picture `index` of a product's split, the same for the same arguments on every call.

    Args:
        product: a key of `PRODUCTS`.
        split: `train`, `good` (of the test set) or one of `DEFECTS`.
        index: number of the picture within its split, from 0.
        seed: seed of the whole data set, from 0.
        size: image side in pixels.

    Returns:
        The picture with its twin and mask; without a defect the twin is the picture and the mask is empty.

    Raises:
        InputError: there is no such product or split.
    """
    for kind, name, known in (("product", product, tuple(PRODUCTS)), ("split", split, SPLITS)):
        if name not in known:
            raise InputError(f"No {kind} {name!r} in the synthetic data set; there are {', '.join(known)}.")
    key = (seed, list(PRODUCTS).index(product), SPLITS.index(split), index)
    clean, alpha = photograph(PRODUCTS[product], key, size, None)
    grain = np.random.default_rng((*key, 1))
    level = grain.uniform(0.005, 0.012)
    sensor = level * grain.standard_normal(clean.shape, dtype=np.float32)
    flawless = _to_bytes(clean + sensor)
    if split not in DEFECTS:
        return Rendering(flawless, flawless, np.zeros((size, size), bool))
    attempt = 0
    while True:  # ends, as every attempt is elsewhere and stronger than the last
        defect = place(split, clean, alpha, (*key, 2, attempt))
        image, _ = photograph(PRODUCTS[product], key, size, defect)
        mask = _difference(image, clean)
        if mask.sum() >= _MIN_PIXELS * (size / 128) ** 2:
            return Rendering(_to_bytes(image + sensor), flawless, mask)
        attempt += 1


def _to_bytes(image: Array) -> NDArray[np.uint8]:
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def _difference(image: Array, clean: Array) -> NDArray[np.bool_]:
    """Where two pictures (H, W, 3) differ visibly, closed over pinholes and without specks: (H, W) bool."""
    mask = np.abs(image - clean).max(axis=2) > _VISIBLE
    mask = ndimage.binary_fill_holes(ndimage.binary_closing(np.pad(mask, 2), iterations=1))[2:-2, 2:-2]
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    return (sizes >= _ISLAND)[labels]
