"""Textures drawn by the program, for defects where no folder of textures is given."""

import numpy as np


def procedural_texture(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Stripes, checks, blotches or grain of two random colours, (H, W, 3) in [0, 255]."""
    kind = (_stripes, _checks, _blotches, _grain)[rng.integers(4)]
    weight = kind(size, rng)[..., None]  # of the second colour
    first, second = rng.uniform(0, 255, (2, 3))
    return (1 - weight) * first + weight * second


def _grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.mgrid[: size[0], : size[1]].astype(np.float64)  # type: ignore[return-value]


def _stripes(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = _grid(size)
    angle, period = rng.uniform(0, np.pi), rng.uniform(0.02, 0.2) * max(size)
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / max(period, 2.0))
    return wave.round() if rng.random() < 0.5 else wave


def _checks(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    y, x = _grid(size)
    angle, side = rng.uniform(0, np.pi), max(rng.uniform(0.02, 0.15) * max(size), 1.0)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    return (np.floor(along / side) + np.floor(across / side)) % 2


def _blotches(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A sum of waves in random directions."""
    y, x = _grid(size)
    total = np.zeros(size)
    for _ in range(6):
        angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.4) * max(size)
        total += np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y) / period + rng.uniform(0, 2 * np.pi))
    return 0.5 + 0.5 * np.tanh(total)


def _grain(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Noise in squares of a few pixels."""
    side = int(rng.integers(1, 5))
    small = rng.random((-(-size[0] // side), -(-size[1] // side)))
    return small.repeat(side, 0).repeat(side, 1)[: size[0], : size[1]]
