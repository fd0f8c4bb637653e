"""CutPaste's synthetic defects (Li et al. 2021, arXiv 2104.04015): a part of the image, put elsewhere in it.

The sizes of scars are those of the paper at 256 pixels; they grow with the image. Hues are left as they are.
"""

import cv2
import numpy as np

from uniad_lightning.errors import InputError

_AREA = 0.02, 0.15  # of the image, of a patch
_ASPECT = 0.3  # a patch's shorter side is at least this share of the longer one
_SCAR_WIDTH, _SCAR_LENGTH = (2, 16), (10, 25)  # pixels of an image of _WIDTH
_WIDTH = 256
_TURN = 45  # degrees, of a scar, either way
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class CutPaste:
    """Two versions of an image: a rectangle of it pasted elsewhere, and a thin turned one, a scar.

    `colour` is the largest relative change of brightness, contrast and saturation of what is pasted. With `patch` a
    square of so many pixels is cut from somewhere in the image first, and its three versions are that square, good, and
    the two of it (Sec. 2.4); a scar is as large as in the whole image.

    Raises InputError for a `colour` outside [0, 1], and a `patch` of no pixel or larger than the image.
    """

    def __init__(self, *, colour: float, patch: int | None = None):
        if not 0 <= colour <= 1:
            raise InputError(f"data.defects.colour={colour}: expected a number from 0 to 1")
        if patch is not None and (not isinstance(patch, int) or isinstance(patch, bool) or patch < 1):
            raise InputError(
                f"data.defects.patch={patch}: expected a whole number of pixels, or null for the whole image"
            )
        self.colour, self.patch = colour, patch
        self.views = 2 if patch is None else 3

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """An image (H, W, 3) uint8 -> with a patch and with a scar, each with its mask (H, W) bool, never empty."""
        scale = min(image.shape[:2]) / _WIDTH
        good = []
        if self.patch is not None:
            image = self._square(image, self.patch, rng)
            good = [(image, np.zeros(image.shape[:2], dtype=bool))]
        return [*good, self._patch(image, rng), self._scar(image, scale, rng)]

    @staticmethod
    def _square(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
        if min(image.shape[:2]) < side:
            raise InputError(f"data.defects.patch={side}: exceeds images of {image.shape[1]}x{image.shape[0]} pixels")
        top, left = (rng.integers(size - side + 1) for size in image.shape[:2])
        return image[top : top + side, left : left + side]

    def _patch(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        area = rng.uniform(*_AREA) * image.shape[0] * image.shape[1]
        narrow = rng.uniform(_ASPECT, 1)
        aspect = narrow if rng.random() < 0.5 else 1 / narrow  # height over width
        cut = self._cut(image, (area * aspect) ** 0.5, (area / aspect) ** 0.5, rng)
        return _paste(image, cut, np.ones(cut.shape[:2], dtype=bool), rng)

    def _scar(self, image: np.ndarray, scale: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        cut = self._cut(image, rng.uniform(*_SCAR_LENGTH) * scale, rng.uniform(*_SCAR_WIDTH) * scale, rng)
        return _paste(image, *_turned(cut, rng.uniform(-_TURN, _TURN)), rng)

    def _cut(self, image: np.ndarray, height: float, width: float, rng: np.random.Generator) -> np.ndarray:
        """A rectangle somewhere in the image, its colours changed, (h, w, 3) uint8."""
        h, w = (int(np.clip(round(side), 1, most)) for side, most in zip((height, width), image.shape[:2], strict=True))
        top, left = (rng.integers(most - side + 1) for side, most in zip((h, w), image.shape[:2], strict=True))
        brightness, contrast, saturation = rng.uniform(1 - self.colour, 1 + self.colour, 3)
        pixels = image[top : top + h, left : left + w].astype(np.float32) * brightness
        mean = (pixels @ _GREY).mean()
        pixels = mean + contrast * (pixels - mean)
        grey = (pixels @ _GREY)[:, :, None]
        return np.clip(grey + saturation * (pixels - grey), 0, 255).round().astype(np.uint8)


def _turned(cut: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A rectangle (h, w, 3) turned, in the smallest upright one around it, and where it has pixels, never nowhere."""
    height, width = cut.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    across, down = abs(turn[0, 0]), abs(turn[0, 1])
    size = max(1, round(width * across + height * down)), max(1, round(height * across + width * down))
    turn[:, 2] += (size[0] - width) / 2, (size[1] - height) / 2
    # Nearest pixels: no colour that the image has not, and the mask's rim is that of the pixels.
    whole = np.dstack([cut, np.full((height, width), 255, dtype=np.uint8)])
    turned = np.asarray(cv2.warpAffine(whole, turn, size, flags=cv2.INTER_NEAREST))
    mask = turned[:, :, 3] > 0
    return (turned[:, :, :3], mask) if mask.any() else (cut, np.ones((height, width), dtype=bool))


def _paste(
    image: np.ndarray, cut: np.ndarray, shape: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """`cut` put somewhere onto the image where its `shape` (h, w) bool is True, cropped to the image; the mask."""
    cut, shape = (part[: image.shape[0], : image.shape[1]] for part in (cut, shape))
    height, width = shape.shape
    top, left = rng.integers(image.shape[0] - height + 1), rng.integers(image.shape[1] - width + 1)
    pasted, mask = image.copy(), np.zeros(image.shape[:2], dtype=bool)
    pasted[top : top + height, left : left + width][shape] = cut[shape]
    mask[top : top + height, left : left + width] = shape
    return pasted, mask
