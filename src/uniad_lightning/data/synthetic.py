"""The embedded default data set: six procedural products in colour with four kinds of defect and exact masks.

A picture is drawn in linear light on a grid three times finer than asked for, lit, averaged down, laid on a background,
developed and given sensor noise. A defect changes the surface before any of that, so the same random numbers give the
flawless twin, and the mask is where the two differ. Pose, light and colour vary far more between good pictures than a
defect changes one; only the product's structure is constant. Written as MVTec AD is laid out.

Lengths are in units of 1/128 of the image side ("pixels at 128"), so a larger picture shows the same product in the
same pose and light.
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

from uniad_lightning.data.products import PRODUCTS, Array, Frame, Gap, Product, Surface, blob, mix, noise, step
from uniad_lightning.errors import InputError

FORMAT_VERSION = 1
DEFECTS = ("deformation", "missing", "scratch", "stain")
SPLITS = ("train", "good", *DEFECTS)  # position is part of the random key: append, never reorder

_MARKER = "synthetic.json"
_FINE = 3  # supersampling per axis
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


class _Defect(NamedTuple):
    """One defect in image coordinates: its kind, centre, direction in radians, strength from 1 up, and random key."""

    kind: str
    x: float
    y: float
    angle: float
    strength: float
    key: tuple[int, ...]


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
            f"Cannot write the synthetic data set to {root}: {error.strerror}. Choose another folder."
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
    clean, alpha = _photograph(PRODUCTS[product], key, size, None)
    grain = np.random.default_rng((*key, 1))
    level = grain.uniform(0.005, 0.012)
    sensor = level * grain.standard_normal(clean.shape, dtype=np.float32)
    flawless = _to_bytes(clean + sensor)
    if split not in DEFECTS:
        return Rendering(flawless, flawless, np.zeros((size, size), bool))
    attempt = 0
    while True:  # ends, as every attempt is elsewhere and stronger than the last
        defect = _place(split, clean, alpha, (*key, 2, attempt))
        image, _ = _photograph(PRODUCTS[product], key, size, defect)
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


def _place(kind: str, clean: Array, alpha: Array, key: tuple[int, ...]) -> _Defect:
    """A random defect centred on the product; missing and deformed parts prefer places that have structure."""
    rng = np.random.default_rng(key)
    size = len(alpha)
    inner = ndimage.minimum_filter(alpha, max(3, size // 24)) > 0.5
    inner[: size // 9], inner[-(size // 9) :], inner[:, : size // 9], inner[:, -(size // 9) :] = 0, 0, 0, 0
    weight = inner.astype(np.float64)
    if kind in ("missing", "deformation"):
        detail = ndimage.gaussian_gradient_magnitude(clean.mean(axis=2), size / 64)
        weight *= 0.02 + ndimage.uniform_filter(detail, size // 12)
    spot = rng.choice(weight.size, p=weight.ravel() / weight.sum())
    row, column = divmod(int(spot), size)
    unit = 128 / size
    x, y = (column + 0.5) * unit - 64, (row + 0.5) * unit - 64
    strength = rng.uniform(1.0, 1.35) + 0.05 * key[-1]
    return _Defect(kind, x, y, rng.uniform(0, 2 * np.pi), strength, key)


def _photograph(product: Product, key: tuple[int, ...], size: int, defect: _Defect | None) -> tuple[Array, Array]:
    """The developed picture (H, W, 3), noise-free and about [0, 1], and the product's coverage (H, W) in [0, 1]."""
    rng = np.random.default_rng((*key, 0))
    axis = ((np.arange(size * _FINE, dtype=np.float32) + 0.5) * (128 / (size * _FINE))) - 64
    x, y = (np.ascontiguousarray(part) for part in np.broadcast_arrays(axis[None], axis[:, None]))
    angle = rng.uniform(-product.rotation, product.rotation)
    move = rng.uniform(-product.shift, product.shift, 2)
    zoom = rng.uniform(1 - product.scale, 1 + product.scale)
    bent_x, bent_y, dent = _bend(x, y, defect)
    frame = _pose(bent_x, bent_y, angle, move, zoom)
    surface = product.draw(frame, rng, _gap(defect, angle, move, zoom))
    surface = surface._replace(height=surface.height + dent)
    if defect is not None and defect.kind in _MARKS:
        surface = _MARKS[defect.kind](surface, product, x, y, defect)
    return _develop(surface, product, size, rng)


def _pose(x: Array, y: Array, angle: float, move: Array, zoom: float) -> Frame:
    """Image coordinates in the product's own frame."""
    c, s = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
    x, y = x - np.float32(move[0]), y - np.float32(move[1])
    return Frame(c * x + s * y, c * y - s * x, angle)


def _bend(x: Array, y: Array, defect: _Defect | None) -> tuple[Array, Array, Array | float]:
    """Coordinates pushed, twisted or swollen within a disc, and the dent (H, W) that goes with it."""
    if defect is None or defect.kind != "deformation":
        return x, y, 0.0
    rng = np.random.default_rng((*defect.key, 1))
    radius = rng.uniform(16, 22)
    dx, dy = x - np.float32(defect.x), y - np.float32(defect.y)
    bump = np.clip(1 - (dx**2 + dy**2) / radius**2, 0, None) ** 2
    # One of push (pixels at 128), twist (radians) and swelling (relative) leads; the strongest all but folds over.
    share = np.full(3, 0.15)
    share[rng.integers(3)] = 0.8
    push, twist, swell = np.float32(share * (11.0, 1.4, 0.75) * defect.strength * rng.choice((-1, 1), 3))
    bent_x = x + bump * (push * np.cos(defect.angle) + twist * dy - swell * dx)
    bent_y = y + bump * (push * np.sin(defect.angle) - twist * dx - swell * dy)
    return bent_x.astype(np.float32), bent_y.astype(np.float32), bump * np.float32(rng.choice((-1, 1)) * 4.0)


def _gap(defect: _Defect | None, angle: float, move: Array, zoom: float) -> Gap | None:
    """The missing part in the product's own frame."""
    if defect is None or defect.kind != "missing":
        return None
    rng = np.random.default_rng((*defect.key, 1))
    centre = _pose(np.float32(defect.x), np.float32(defect.y), angle, move, zoom)
    reach = rng.uniform(9.0, 12.0) * defect.strength
    return Gap(float(centre.x), float(centre.y), reach, rng.uniform(0, 2 * np.pi, 3).astype(np.float32))


def _scratch(surface: Surface, product: Product, x: Array, y: Array, defect: _Defect) -> Surface:
    """A bowed groove through the surface that tapers off at both ends and lays the core bare."""
    rng = np.random.default_rng((*defect.key, 1))
    rough = noise(x / 2.3, y / 2.3, rng)
    dx, dy = x - np.float32(defect.x), y - np.float32(defect.y)
    c, s = np.float32(np.cos(defect.angle)), np.float32(np.sin(defect.angle))
    along, across = c * dx + s * dy, c * dy - s * dx
    half = rng.uniform(18, 28) * defect.strength
    across = across + np.float32(rng.uniform(-6, 6)) * (along / half) ** 2 + 0.35 * rough
    width = np.float32(rng.uniform(1.6, 2.3)) * np.sqrt(np.clip(1 - (along / half) ** 2, 0, None)) * (1 + 0.3 * rough)
    groove = step(0.6, -0.5, np.abs(across) - width) * (np.abs(along) < half)
    bare = product.core * (0.85 + 0.25 * rough)
    return surface._replace(
        albedo=mix(surface.albedo, bare, groove * np.float32(rng.uniform(0.85, 1.0))),
        height=surface.height - 1.4 * groove,
        gloss=surface.gloss * (1 - 0.5 * groove),
    )


def _stain(surface: Surface, product: Product, x: Array, y: Array, defect: _Defect) -> Surface:
    """A dull film of one of the product's soils, densest along its rim; what lies below shines through."""
    rng = np.random.default_rng((*defect.key, 1))
    rough = noise(x / 2.3, y / 2.3, rng)
    outline = Gap(defect.x, defect.y, rng.uniform(9.0, 13.0) * defect.strength, rng.uniform(0, 6.28, 3))
    depth = blob(x, y, outline) + 0.8 * rough
    paint = product.soil[rng.integers(len(product.soil))]
    film = step(1.2, -2.2, depth) * rng.uniform(0.78, 0.92) * (1 + 0.08 * step(-4.5, -0.5, depth))
    tinted = mix(surface.albedo * paint * 2.2, paint, np.float32(0.45))
    return surface._replace(albedo=mix(surface.albedo, tinted, film), gloss=surface.gloss * (1 - 0.6 * film))


_MARKS = {"scratch": _scratch, "stain": _stain}


def _develop(surface: Surface, product: Product, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Lights the surface with one lamp, averages it down, lays it on the floor and encodes it for display."""
    heading, lean = rng.normal(-2.2, 0.2), rng.uniform(0.6, 0.9)
    lamp = np.array((lean * np.cos(heading), lean * np.sin(heading), 1.0), np.float32) / np.float32(np.hypot(lean, 1))
    pitch = np.float32(128 / (size * _FINE))
    slope_x = np.diff(surface.height, axis=1, append=surface.height[:, -1:]) / pitch
    slope_y = np.diff(surface.height, axis=0, append=surface.height[-1:]) / pitch
    upright = 1 / np.sqrt(slope_x**2 + slope_y**2 + 1)
    diffuse = np.clip((lamp[2] - slope_x * lamp[0] - slope_y * lamp[1]) * upright, 0, None)
    half = lamp + np.array((0, 0, 1), np.float32)
    half /= np.linalg.norm(half)
    mirror = np.clip((half[2] - slope_x * half[0] - slope_y * half[1]) * upright, 0, None)
    for _ in range(5):  # the 32nd power, several times faster than np.power
        mirror = mirror * mirror
    lit = surface.albedo * (0.28 + 0.85 * diffuse) + surface.gloss * mirror
    lit, alpha = _average(lit * surface.alpha, size), _average(surface.alpha, size)
    image = lit + (1 - alpha) * _floor(product, alpha, lamp, size, rng)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    fall = rng.uniform(-0.25, 0.25, 2).astype(np.float32)
    light = rng.uniform(0.85, 1.15) * (1 + fall[0] * axis[None] + fall[1] * axis[:, None])
    light = light * (1 - 0.35 * (axis[None] ** 2 + axis[:, None] ** 2))
    tint = rng.normal(1, 0.025, (3, 1, 1)).astype(np.float32)
    image = np.clip(image * light * tint, 0, None).astype(np.float32)
    image = ndimage.gaussian_filter(image, (0, *2 * (rng.uniform(0.25, 0.42) * size / 128,)))
    return np.ascontiguousarray((image ** np.float32(1 / 2.2)).transpose(1, 2, 0)), alpha


def _average(field: Array, size: int) -> Array:
    """Box average of (..., 3 H, 3 W) down to (..., H, W)."""
    rows = field[..., ::3, :] + field[..., 1::3, :] + field[..., 2::3, :]
    return (rows[..., ::3] + rows[..., 1::3] + rows[..., 2::3]) / np.float32(9)


def _floor(product: Product, alpha: Array, lamp: Array, size: int, rng: np.random.Generator) -> Array:
    """What the product lies on (3, H, W): a worn mat with the product's soft shadow."""
    unit = size / 128
    shadow = ndimage.gaussian_filter(alpha, 2.2 * unit)
    shadow = ndimage.shift(shadow, (-4.5 * lamp[1] * unit, -4.5 * lamp[0] * unit), order=1, mode="nearest")
    y, x = np.mgrid[:size, :size].astype(np.float32) / unit
    worn = 0.10 * noise(x / 17, y / 17, rng) + 0.05 * noise(x / 1.7, y / 1.7, rng)
    return product.floor * (1 + worn) * (1 - 0.6 * shadow)
