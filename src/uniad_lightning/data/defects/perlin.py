"""Defects as DRAEM makes them (Zavrtanik et al. 2021): another texture, laid over the image in blots of Perlin noise.

The paper takes its textures from DTD; without a folder of images they are procedural here. The three augmentations that
the paper draws for each texture are mirrorings and a change of brightness and contrast here. The noise is turned by a
multiple of 90 degrees, in the paper by any angle up to 90 either way, and a mask without a pixel is drawn again.
"""

import numpy as np

from uniad_lightning.data.defects.base import check_share_good
from uniad_lightning.data.defects.image_folder import ImageFolder
from uniad_lightning.data.defects.textures import procedural_texture
from uniad_lightning.errors import InputError

_SCALES = 6  # cells of the noise are 1 / 2^k of the image, k from 0 to 5
_THRESHOLD = 0.5  # of the noise


class PerlinDefects:
    """I * (1 - M) + (1 - beta) * A * M + beta * I * M for an image I, a texture A and a mask M of Perlin noise.

    `textures` is a folder of images (DTD), None for procedural ones; `opacity` the range [least, most] of 1 - beta;
    `share_good` the probability that an image is left as it is.

    Raises InputError for values out of range, and for a folder without images when the first defect is made.
    """

    views = 1

    def __init__(self, *, textures: str | None, opacity: list[float], share_good: float):
        if len(opacity) != 2 or not 0 < opacity[0] <= opacity[1] <= 1:
            raise InputError(f"data.defects.opacity={opacity}: expected [least, most], above 0 and at most 1")
        self.folder = None if textures is None else ImageFolder(textures, key="data.defects.textures")
        self.opacity = opacity
        self.share_good = check_share_good(share_good)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """An image (H, W, 3) uint8 -> one image of the same kind with its mask (H, W) bool."""
        size = image.shape[0], image.shape[1]
        if rng.random() < self.share_good:
            return [(image, np.zeros(size, dtype=bool))]
        mask = blots(size, rng)
        opacity = rng.uniform(self.opacity[0], self.opacity[1])
        mixed = (1 - opacity) * image + opacity * self._texture(size, rng)
        return [(np.where(mask[..., None], mixed.round(), image).astype(np.uint8), mask)]

    def _texture(self, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """(H, W, 3) in [0, 255]."""
        texture = procedural_texture(size, rng) if self.folder is None else self.folder.draw(size, rng)
        if rng.random() < 0.5:
            texture = texture[:, ::-1]
        if rng.random() < 0.5:
            texture = texture[::-1]
        contrast, brightness = rng.uniform(0.6, 1.4), rng.uniform(-30, 30)
        return np.clip((texture - 127.5) * contrast + 127.5 + brightness, 0, 255)


def blots(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A mask (H, W) bool of Perlin noise above its threshold, never empty; turned by a multiple of 90 degrees.

    The scales along both axes are drawn for themselves.
    """
    if size == (1, 1):  # its only pixel is a corner of a cell, where any noise is 0
        return np.ones(size, dtype=bool)
    while True:
        turns = int(rng.integers(4))
        height, width = size if turns % 2 == 0 else size[::-1]
        cells = 2 ** int(rng.integers(_SCALES)), 2 ** int(rng.integers(_SCALES))
        mask = np.rot90(perlin_noise((height, width), cells, rng) > _THRESHOLD, turns)
        if mask.any():
            return np.ascontiguousarray(mask)


def perlin_noise(size: tuple[int, int], cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Gradient noise (H, W) (Perlin 1985) of rows x columns `cells`; about -1 to 1, 0 at the corners of cells."""
    angles = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    (row, y), (column, x) = (_places(length, count) for length, count in zip(size, cells, strict=True))
    corners = [
        [
            gradients[row + down][:, column + right, 0] * (y - down)[:, None]
            + gradients[row + down][:, column + right, 1] * (x - right)[None]
            for right in (0, 1)
        ]
        for down in (0, 1)
    ]
    across, along = _fade(x)[None], _fade(y)[:, None]
    upper, lower = (left + across * (right - left) for left, right in corners)
    return np.sqrt(2) * (upper + along * (lower - upper))


def _places(length: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """The cell of each of `length` pixels, and where in it the pixel is, from 0 to 1."""
    places = np.arange(length) * cells / length
    return places.astype(int), places % 1


def _fade(t: np.ndarray) -> np.ndarray:
    """Perlin 2002: first and second derivative vanish at 0 and 1."""
    return t**3 * (t * (6 * t - 15) + 10)
