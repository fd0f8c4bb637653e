"""An anomaly map at the size of its image, in NumPy: a result is drawn where torch need not be installed."""

import numpy as np

from uniad_lightning.types import Size

_ROWS = 256  # made at once, so that the memory besides the result stays small


def enlarged(heat: np.ndarray, size: Size) -> np.ndarray:
    """A map (h, w) float32 at `size` (height, width), float32: the same as `scoring.upsample` up to rounding.

    Bilinear with aligned corners, as in the reference (`UpsamplingBilinear2d`).
    """
    if heat.shape == tuple(size):
        return heat
    left, right, across = _places(heat.shape[1], size[1])
    wide = heat[:, left] * (1 - across) + heat[:, right] * across  # (h, width)
    upper, lower, down = _places(heat.shape[0], size[0])
    whole = np.empty(size, dtype=np.float32)
    for start in range(0, size[0], _ROWS):
        rows = slice(start, start + _ROWS)
        share = down[rows, None]
        whole[rows] = wide[upper[rows]] * (1 - share) + wide[lower[rows]] * share
    return whole


def _places(length: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For `size` outputs, the two inputs of `length` beside each, and the share of the second, float32."""
    places = np.linspace(0, length - 1, size) if size > 1 else np.zeros(1)
    first = np.minimum(places.astype(np.int64), max(length - 2, 0))
    return first, np.minimum(first + 1, length - 1), (places - first).astype(np.float32)
