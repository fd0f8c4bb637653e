"""Parts of the drawings: coordinates, surfaces, distances to outlines, noise, colours.

Lengths are in units of 1/128 of the image side ("pixels at 128"); colours are linear light in [0, 1]. Shapes: `H, W` is
the supersampled grid.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


class Frame(NamedTuple):
    """The object's own coordinates, origin in the image centre at rest, and its rotation in the image in radians."""

    x: Array
    y: Array
    angle: float


class Gap(NamedTuple):
    """A missing part: centre `x, y` in the object's coordinates, radius `reach`, and the outline's phases (3,)."""

    x: float
    y: float
    reach: float
    phases: Array


class Surface(NamedTuple):
    """Albedo (3, H, W) in [0, 1], height (H, W) in pixels at 128, gloss (H, W) in [0, 1], coverage (H, W) in {0, 1}."""

    albedo: Array
    height: Array
    gloss: Array
    alpha: Array


Drawing = Callable[[Frame, np.random.Generator, Gap | None], Surface]


class Category(NamedTuple):
    """A category of objects: their drawing, pose under the camera, background and material.

    Angles are radians, `shift` pixels at 128, `scale` a relative range; `floor` is the colour (3, 1, 1) underneath,
    `core` the colour a scratch lays bare, `soil` the colours of its stains.
    """

    draw: Drawing
    rotation: float
    shift: float
    scale: float
    floor: Array
    core: Array
    soil: tuple[Array, ...]


def colour(code: str) -> Array:
    """Linear-light colour (3, 1, 1) of an sRGB hexadecimal code such as `c8a24b`."""
    return ((np.frombuffer(bytes.fromhex(code), np.uint8) / 255.0) ** 2.2).astype(np.float32).reshape(3, 1, 1)


def step(low: float, high: float, value: Array) -> Array:
    """Smooth ramp from 0 at `low` to 1 at `high`; falls where `low > high`."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def noise(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Value noise in [-1, 1] on a unit lattice that repeats after 64 cells."""
    # Padded to wrap, so that the right and lower neighbours are fixed steps away.
    table = np.pad(rng.uniform(-1, 1, (64, 64)).astype(np.float32), (0, 1), mode="wrap").ravel()
    column, row = np.floor(x), np.floor(y)
    fx, fy = x - column, y - row
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    corner = (row.astype(np.int32) & 63) * 65 + (column.astype(np.int32) & 63)
    upper, lower = table[corner], table[corner + 65]
    upper += fx * (table[corner + 1] - upper)
    lower += fx * (table[corner + 66] - lower)
    return upper + fy * (lower - upper)


def blob(x: Array, y: Array, gap: Gap) -> Array:
    """Distance to an irregular closed outline, negative inside, in pixels at 128."""
    dx, dy = x - gap.x, y - gap.y
    angle = np.arctan2(dy, dx)
    wave = sum(a * np.cos(k * angle + p) for a, k, p in zip((0.24, 0.12, 0.09), (2, 3, 7), gap.phases, strict=True))
    return np.hypot(dx, dy) - gap.reach * (1 + wave)


def box(x: Array, y: Array, half_x: float, half_y: float, radius: float = 0.0) -> Array:
    """Distance to a rounded rectangle about the origin, negative inside; outside a sharp corner the larger offset."""
    dx, dy = np.abs(x) - (half_x - radius), np.abs(y) - (half_y - radius)
    if not radius:
        return np.maximum(dx, dy)
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - radius


def mix(base: Array, paint: Array, amount: Array) -> Array:
    """`base` where `amount` is 0 and `paint` where it is 1."""
    return base + (paint - base) * amount
