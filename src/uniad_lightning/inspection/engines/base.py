"""The interface of the engines that a `Detector` runs."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from uniad_lightning.data.images.channels import Channels
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.types import Box


class EngineOutput(NamedTuple):
    """The results of an engine for B images.

    Attributes:
        maps: anomaly maps (B, h, w) float32 of the inspected region.
        scores: image scores (B,) float.
        distances: of each image from the train images, (B,), in units of the boundary of `Familiarity`; None: unknown.
        categories: the category found in each image; None where the detector cannot tell.
    """

    maps: np.ndarray
    scores: np.ndarray
    distances: np.ndarray | None
    categories: Sequence[str | None]


class Engine(Protocol):
    """Runs the model of a checkpoint or of an exported file. Safe to call from several threads.

    `model` is its name for people, `categories` are those of its training.
    """

    model: str
    categories: Sequence[str]
    calibration: Calibration | None
    region: Box
    white_level: int
    channels: Channels | None

    def __call__(self, images: Sequence[np.ndarray]) -> EngineOutput:
        """Inspect images, each (H, W, 3) uint8 RGB of any size."""


def names_of(names: Sequence[str], places: Iterable[int]) -> list[str | None]:
    """The names at `places`, None for a negative one."""
    return [names[place] if place >= 0 else None for place in places]
