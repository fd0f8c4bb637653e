"""The colours of an anomaly map, wherever one is drawn."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np

_TURBO = (matplotlib.colormaps["turbo"](np.arange(256))[:, :3] * 255).astype(np.uint8)  # (256, 3)
_OPACITY = 0.6  # of the strongest colour in an overlay


class Scale(NamedTuple):
    """What the colours of maps mean.

    Attributes:
        low: the map's value at blue.
        high: that at red.
        boundary: the value above which a pixel is defective, halfway between them; None without one.
    """

    low: float
    high: float
    boundary: float | None = None

    @classmethod
    def of(cls, maps: Sequence[np.ndarray], boundary: float | None) -> "Scale":
        """One scale for all `maps` (H, W), from their minimum to twice as far as the boundary, or to their maximum."""
        low, high = (float(end(list(map(end, maps)))) for end in (np.min, np.max))
        if boundary is None:
            return cls(low, high)
        if low >= boundary:
            low = boundary - max(high - boundary, 1e-12)
        return cls(low, 2 * boundary - low, boundary)


def heat_colours(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scores (...) as RGB colours (..., 3) uint8, from blue at `low` and below to red at `high` and above."""
    return _TURBO[_levels(scores, low, high)]


def overlay(image: np.ndarray, scores: np.ndarray, scale: Scale) -> np.ndarray:
    """The photograph `image` (H, W, 3) uint8 with the colours of its map `scores` (H, W) over it.

    Up to the boundary it is the photograph as it is; from there on colour grows stronger until halfway to `scale.high`.
    Without a boundary it does so from `scale.low` on.
    """
    start = 0.0 if scale.boundary is None else 255 * (scale.boundary - scale.low) / (scale.high - scale.low)
    growth = np.sqrt(np.clip((np.arange(256) - start) / ((255 - start) / 2), 0, 1))
    opacity = np.round(256 * _OPACITY * growth).astype(np.uint16)[:, None]  # (256, 1), in 256ths
    levels = _levels(scores, scale.low, scale.high)
    return ((image * (256 - opacity)[levels] + (_TURBO * opacity)[levels]) >> 8).astype(np.uint8)


def _levels(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((scores - low) * (255 / max(high - low, 1e-12)), 0, 255).astype(np.uint8)
