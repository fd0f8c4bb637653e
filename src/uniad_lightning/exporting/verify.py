"""Does an exported file say what its checkpoint says? They are compared on real pictures and on generated ones."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from uniad_lightning.errors import InputError
from uniad_lightning.inspection.engines.base import Engine, Seen

TOLERANCE = 1e-4  # of a map's range
TOLERANCE_DISTANCE = (
    1e-3  # of the boundary, or of a distance beyond it: `cdist` itself loses that much to rounding in small distances
)
SIZES = ((1, 1), (7, 5), (37, 300), (300, 37), (224, 224), (481, 640), (640, 481))  # (height, width)


class Agreement(NamedTuple):
    """The largest differences between two engines on the same pictures.

    Attributes:
        map: of a map's value, relative to the range of the checkpoint's map of that picture.
        score: of the score, relative to the same range.
        distance: of the distance from what was trained on, relative to the boundary; 0 where there is none.
        pictures: how many were compared.
    """

    map: float
    score: float
    distance: float
    pictures: int


def agreement(checkpoint: Engine, file: Engine, batches: Iterable[Sequence[np.ndarray]]) -> Agreement:
    """How far `file` is from `checkpoint` on batches of pictures, each (H, W, 3) uint8 RGB.

    Raises InputError where the file's numbers are not finite.
    """
    worst, pictures = np.zeros(3), 0
    for batch in batches:
        expected, found = checkpoint(batch), file(batch)
        for name, values in (("map", found.maps), ("score", found.scores)):
            if not np.isfinite(values).all():
                raise InputError(
                    f"the file's {name} is not finite; numbers leave the range of its precision, use precision=fp32"
                )
        worst = np.maximum(worst, _differences(expected, found))
        pictures += len(batch)
    return Agreement(float(worst[0]), float(worst[1]), float(worst[2]), pictures)


def _differences(expected: Seen, found: Seen) -> tuple[float, float, float]:
    high, low = expected.maps.max(axis=(1, 2)), expected.maps.min(axis=(1, 2))
    # A map that is the same everywhere has no range: its value is what a difference is small or large against.
    scale = np.where(high - low > 1e-6 * abs(high), high - low, np.maximum(abs(high), 1e-30))
    in_map = abs(found.maps - expected.maps).max(axis=(1, 2)) / scale
    in_score = abs(found.scores - expected.scores) / scale
    if expected.distances is None or found.distances is None:
        return float(in_map.max()), float(in_score.max()), 0.0
    # Of a generated picture the distance may be thousands of boundaries, and its rounding with it.
    in_distance = abs(found.distances - expected.distances) / np.maximum(expected.distances, 1)
    return float(in_map.max()), float(in_score.max()), float(in_distance.max())


def refuse_disagreement(found: Agreement) -> None:
    """Raises InputError with the figure where a file differs from its checkpoint by more than rounding."""
    for name, value, most in (
        ("map", found.map, TOLERANCE),
        ("score", found.score, TOLERANCE),
        ("distance", found.distance, TOLERANCE_DISTANCE),
    ):
        if not value <= most:
            raise InputError(
                f"the exported file's {name} differs from the checkpoint's by {value:.1e} (at most {most:.0e} is "
                f"rounding; {found.pictures} pictures), so it was deleted; please report it with the backbone's name"
            )


def generated_pictures() -> list[list[np.ndarray]]:
    """Batches of pictures (H, W, 3) uint8 of odd sizes, the same every time: coarse shapes under noise, and black."""
    rng = np.random.default_rng(0)
    batches = [[_shapes(rng, height, width) for _ in range(3 if height == 37 else 1)] for height, width in SIZES]
    return [*batches, [np.zeros((64, 48, 3), dtype=np.uint8)]]


def _shapes(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.normal(0, 12, (height, width, 3))
    return np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)
