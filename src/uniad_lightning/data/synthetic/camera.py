"""From a surface to a photograph: pose, defect, lamp, floor, lens. Used by `dataset`.

An image is drawn in linear light on a grid three times finer than asked for, lit, averaged down, laid on a background
and developed. A defect changes the surface before any of that, so the same random numbers give the flawless twin.
Lengths are in "pixels at 128", as in `surface`.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from uniad_lightning.data.synthetic.surface import Array, Category, Frame, Gap, Surface, blob, mix, noise, step

_FINE = 3  # supersampling per axis


class Defect(NamedTuple):
    """One defect in image coordinates: its kind, centre, direction in radians, strength from 1 up, and random key."""

    kind: str
    x: float
    y: float
    angle: float
    strength: float
    key: tuple[int, ...]


def place(kind: str, clean: Array, alpha: Array, key: tuple[int, ...]) -> Defect:
    """A random defect centred on the object; missing and deformed parts prefer places that have structure."""
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
    return Defect(kind, x, y, rng.uniform(0, 2 * np.pi), strength, key)


def photograph(category: Category, key: tuple[int, ...], size: int, defect: Defect | None) -> tuple[Array, Array]:
    """The developed image (H, W, 3), noise-free and about [0, 1], and the object's coverage (H, W) in [0, 1]."""
    rng = np.random.default_rng((*key, 0))
    axis = ((np.arange(size * _FINE, dtype=np.float32) + 0.5) * (128 / (size * _FINE))) - 64
    x, y = (np.ascontiguousarray(part) for part in np.broadcast_arrays(axis[None], axis[:, None]))
    angle = rng.uniform(-category.rotation, category.rotation)
    move = rng.uniform(-category.shift, category.shift, 2)
    zoom = rng.uniform(1 - category.scale, 1 + category.scale)
    bent_x, bent_y, dent = _bend(x, y, defect)
    frame = _pose(bent_x, bent_y, angle, move, zoom)
    surface = category.draw(frame, rng, _gap(defect, angle, move, zoom))
    surface = surface._replace(height=surface.height + dent)
    if defect is not None and defect.kind in _MARKS:
        surface = _MARKS[defect.kind](surface, category, x, y, defect)
    return _develop(surface, category, size, rng)


def _pose(x: Array, y: Array, angle: float, move: Array, zoom: float) -> Frame:
    """Image coordinates in the object's own frame."""
    c, s = np.float32(np.cos(angle) / zoom), np.float32(np.sin(angle) / zoom)
    x, y = x - np.float32(move[0]), y - np.float32(move[1])
    return Frame(c * x + s * y, c * y - s * x, angle)


def _bend(x: Array, y: Array, defect: Defect | None) -> tuple[Array, Array, Array | float]:
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


def _gap(defect: Defect | None, angle: float, move: Array, zoom: float) -> Gap | None:
    """The missing part in the object's own frame."""
    if defect is None or defect.kind != "missing":
        return None
    rng = np.random.default_rng((*defect.key, 1))
    centre = _pose(np.float32(defect.x), np.float32(defect.y), angle, move, zoom)
    reach = rng.uniform(9.0, 12.0) * defect.strength
    return Gap(float(centre.x), float(centre.y), reach, rng.uniform(0, 2 * np.pi, 3).astype(np.float32))


def _scratch(surface: Surface, category: Category, x: Array, y: Array, defect: Defect) -> Surface:
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
    bare = category.core * (0.85 + 0.25 * rough)
    return surface._replace(
        albedo=mix(surface.albedo, bare, groove * np.float32(rng.uniform(0.85, 1.0))),
        height=surface.height - 1.4 * groove,
        gloss=surface.gloss * (1 - 0.5 * groove),
    )


def _stain(surface: Surface, category: Category, x: Array, y: Array, defect: Defect) -> Surface:
    """A dull film of one of the category's soils, densest along its rim; what lies below shines through."""
    rng = np.random.default_rng((*defect.key, 1))
    rough = noise(x / 2.3, y / 2.3, rng)
    outline = Gap(defect.x, defect.y, rng.uniform(9.0, 13.0) * defect.strength, rng.uniform(0, 6.28, 3))
    depth = blob(x, y, outline) + 0.8 * rough
    paint = category.soil[rng.integers(len(category.soil))]
    film = step(1.2, -2.2, depth) * rng.uniform(0.78, 0.92) * (1 + 0.08 * step(-4.5, -0.5, depth))
    tinted = mix(surface.albedo * paint * 2.2, paint, np.float32(0.45))
    return surface._replace(albedo=mix(surface.albedo, tinted, film), gloss=surface.gloss * (1 - 0.6 * film))


_MARKS = {"scratch": _scratch, "stain": _stain}


def _develop(surface: Surface, category: Category, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
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
    image = lit + (1 - alpha) * _floor(category, alpha, lamp, size, rng)
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


def _floor(category: Category, alpha: Array, lamp: Array, size: int, rng: np.random.Generator) -> Array:
    """The background (3, H, W): a worn mat with the object's soft shadow."""
    unit = size / 128
    shadow = ndimage.gaussian_filter(alpha, 2.2 * unit)
    shadow = ndimage.shift(shadow, (-4.5 * lamp[1] * unit, -4.5 * lamp[0] * unit), order=1, mode="nearest")
    y, x = np.mgrid[:size, :size].astype(np.float32) / unit
    worn = 0.10 * noise(x / 17, y / 17, rng) + 0.05 * noise(x / 1.7, y / 1.7, rng)
    return category.floor * (1 + worn) * (1 - 0.6 * shadow)
