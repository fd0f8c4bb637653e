"""What a `Detector` runs, whatever it was loaded from."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.types import Box


class Seen(NamedTuple):
    """What an engine sees in B pictures.

    Attributes:
        maps: anomaly maps (B, h, w) float32 of the region that was looked at.
        scores: image scores (B,) float.
        distances: how far each is from what was trained on, (B,), relative to the boundary at 1; None: not known.
    """

    maps: np.ndarray
    scores: np.ndarray
    distances: np.ndarray | None


class Engine(Protocol):
    """What a `Detector` runs: a checkpoint, or an exported file. Safe to call from several threads."""

    calibration: Calibration | None
    region: Box
    white_level: int

    def __call__(self, images: Sequence[np.ndarray]) -> Seen:
        """Judge pictures, each (H, W, 3) uint8 RGB of any size."""
