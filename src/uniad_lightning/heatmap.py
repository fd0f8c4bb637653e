"""The colours of an anomaly map, wherever one is drawn."""

import matplotlib
import numpy as np

_TURBO = (matplotlib.colormaps["turbo"](np.arange(256))[:, :3] * 255).astype(np.uint8)  # (256, 3)


def heat_colours(scores: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scores (...) as RGB colours (..., 3) uint8, from blue at `low` and below to red at `high` and above."""
    levels = np.clip((scores - low) * (255 / max(high - low, 1e-12)), 0, 255)
    return _TURBO[levels.astype(np.uint8)]
