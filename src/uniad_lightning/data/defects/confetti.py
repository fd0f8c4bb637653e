"""FCDD's synthetic anomalies (Liznerski et al. 2021): confetti, or other images in place of the good ones.

Rates and sizes of confetti are those of liznerski/fcdd at 224 pixels; sizes grow with the image.
"""

import cv2
import numpy as np

from uniad_lightning.data.defects.base import check_share_good
from uniad_lightning.data.defects.image_folder import ImageFolder

_COLOURED, _WHITE = 1.8e-5, 1.2e-5  # pieces for each pixel
_SIDES = 8, 54  # pixels
_WIDTH = 224
_BRIGHT = 0.5  # above it a piece is subtracted


class Confetti:
    """Pieces of random colours and white ones, some turned by 45 degrees, added to an image.

    Where the image is bright they are subtracted.

    `share_good` is the probability that an image is left as it is. Raises InputError for one out of range.
    """

    views = 1

    def __init__(self, *, share_good: float):
        self.share_good = check_share_good(share_good)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """An image (H, W, 3) uint8 -> one image of the same kind with its mask (H, W) bool."""
        if rng.random() < self.share_good:
            return [(image, np.zeros(image.shape[:2], dtype=bool))]
        pieces = np.zeros(image.shape, dtype=np.float32)
        for rate, coloured in ((_COLOURED, True), (_WHITE, False)):
            for _ in range(max(1, rng.poisson(rate * image.shape[0] * image.shape[1]))):
                self._add(pieces, rng, coloured=coloured)
        pieces = np.asarray(cv2.GaussianBlur(pieces, (0, 0), 1.0), dtype=np.float32)
        bright = image.mean(axis=2, keepdims=True) > 255 * _BRIGHT
        damaged = np.clip(image + np.where(bright, -pieces, pieces), 0, 255).round().astype(np.uint8)
        return [(damaged, pieces.max(axis=2) > 1)]

    @staticmethod
    def _add(pieces: np.ndarray, rng: np.random.Generator, *, coloured: bool) -> None:
        scale = pieces.shape[1] / _WIDTH
        sides = rng.uniform(_SIDES[0], _SIDES[1], 2) * scale
        centre = rng.uniform(0, pieces.shape[1]), rng.uniform(0, pieces.shape[0])
        corners = cv2.boxPoints((centre, tuple(sides), 45.0 * rng.integers(2)))
        colour = rng.uniform(0, 255, 3) if coloured else np.full(3, 255.0)
        cv2.fillConvexPoly(pieces, corners.round().astype(np.int32), colour.tolist())


class OutlierExposure:
    """Images of `folder` in the place of good ones, anomalous at every pixel (FCDD+OE).

    `share_good` is the probability that an image stays. Raises InputError for one out of range, and for a folder
    without images when the first is drawn.
    """

    views = 1

    def __init__(self, *, folder: str, share_good: float):
        self.folder = ImageFolder(folder, key="data.defects.folder")
        self.share_good = check_share_good(share_good)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """An image (H, W, 3) uint8 -> itself or an image of the folder, with its mask (H, W) bool."""
        size = image.shape[0], image.shape[1]
        if rng.random() < self.share_good:
            return [(image, np.zeros(size, dtype=bool))]
        return [(self.folder.draw(size, rng), np.ones(size, dtype=bool))]
