"""Compares an exported file's outputs with its checkpoint's, on real images and on generated ones."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from uniad_lightning.errors import InputError
from uniad_lightning.inspection.engines.base import Engine, EngineOutput

TOLERANCE = 1e-4  # of a map's range
_LEAST_RANGE = 0.05  # of a map, in shares of its largest value: sums of many pixels round to some 1e-6 of it
TOLERANCE_DISTANCE = (
    1e-3  # of the boundary, or of a larger distance: `cdist` itself rounds small distances by that much
)
SIZES = ((1, 1), (7, 5), (37, 300), (300, 37), (224, 224), (481, 640), (640, 481))  # (height, width)


class Agreement(NamedTuple):
    """The largest differences between two engines on the same images.

    Attributes:
        map: of a map's value, relative to the range of the checkpoint's map of that image, at least a twentieth of its
            largest value.
        score: of the score, relative to the same range.
        distance: of the distance from the training images, relative to the boundary; 0 without one.
        pictures: number of compared images; the name is a key of `export.json`.
    """

    map: float
    score: float
    distance: float
    pictures: int


def agreement(checkpoint: Engine, file: Engine, batches: Iterable[Sequence[np.ndarray]]) -> Agreement:
    """The differences of `file` from `checkpoint` on batches of images, each (H, W, 3) uint8 RGB.

    Raises InputError where the file's numbers are not finite.
    """
    worst, count = np.zeros(3), 0
    for batch in batches:
        expected, exported = checkpoint(batch), file(batch)
        for name, values in (("map", exported.maps), ("score", exported.scores)):
            if not np.isfinite(values).all():
                raise InputError(
                    f"the file's {name} is not finite; numbers leave the range of its precision, use precision=fp32"
                )
        worst = np.maximum(worst, _differences(expected, exported))
        count += len(batch)
    return Agreement(float(worst[0]), float(worst[1]), float(worst[2]), count)


def _differences(expected: EngineOutput, exported: EngineOutput) -> tuple[float, float, float]:
    """The largest differences in map, score and distance of one batch, as `Agreement` has them."""
    high, low = expected.maps.max(axis=(1, 2)), expected.maps.min(axis=(1, 2))
    # Rounding is in proportion to values: in a map that is nearly constant it is large beside the range.
    scale = np.maximum(np.maximum(high - low, _LEAST_RANGE * abs(high)), 1e-30)
    in_map = abs(exported.maps - expected.maps).max(axis=(1, 2)) / scale
    in_score = abs(exported.scores - expected.scores) / scale
    if expected.distances is None or exported.distances is None:
        return float(in_map.max()), float(in_score.max()), 0.0
    # The distance of a generated image may be thousands of boundaries, with rounding in proportion.
    in_distance = abs(exported.distances - expected.distances) / np.maximum(expected.distances, 1)
    return float(in_map.max()), float(in_score.max()), float(in_distance.max())


def refuse_disagreement(differences: Agreement) -> None:
    """Raises InputError with the number where a file differs from its checkpoint by more than rounding."""
    for name, value, most in (
        ("map", differences.map, TOLERANCE),
        ("score", differences.score, TOLERANCE),
        ("distance", differences.distance, TOLERANCE_DISTANCE),
    ):
        if not value <= most:
            raise InputError(
                f"the exported file's {name} differs from the checkpoint's by {value:.1e} (at most {most:.0e} is "
                f"rounding; {differences.pictures} images), so it was deleted; please report it and name the backbone"
            )


def generated_images() -> list[list[np.ndarray]]:
    """Batches of images (H, W, 3) uint8 of odd sizes, the same every time: coarse shapes under noise, and black."""
    rng = np.random.default_rng(0)
    batches = [[_shapes(rng, height, width) for _ in range(3 if height == 37 else 1)] for height, width in SIZES]
    return [*batches, [np.zeros((64, 48, 3), dtype=np.uint8)]]


def _shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One image (height, width, 3) uint8 of coarse shapes under noise."""
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.normal(0, 12, (height, width, 3))
    return np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)
