"""What good images of a product gave at the calibration, with which later ones are compared (`drift`).

Not in the paper, which ends in AUROC.
"""

import sys
from typing import Any, NamedTuple

import numpy as np

_MOST = 10**9  # images: what no calibration has, and the distributions of `drift.limits` still compute


class Baseline(NamedTuple):
    """Scores and unfamiliar images among good images of one product that the detector was not trained on.

    Attributes:
        images: good images whose scores these are, at least one.
        low: their lower quartile, which is one of the scores: number `ranks(images)[0]` in ascending order.
        median: their median, number `ranks(images)[1]`.
        high: their upper quartile, number `ranks(images)[2]`.
        compared: good images whose familiarity is known; 0 of a detector that cannot tell.
        unfamiliar: how many of those are unfamiliar.
    """

    images: int
    low: float
    median: float
    high: float
    compared: int
    unfamiliar: int

    @classmethod
    def of(cls, scores: np.ndarray, *, compared: int, unfamiliar: int) -> "Baseline":
        """The baseline of image scores (n,), n at least 1."""
        low, median, high = (float(np.sort(scores)[rank - 1]) for rank in ranks(len(scores)))
        return cls(len(scores), low, median, high, compared, unfamiliar)

    @classmethod
    def from_plain(cls, name: str, values: dict[str, Any]) -> "Baseline":
        """The opposite of `_asdict`; ValueError for values that no baseline has, TypeError for other names."""
        found = cls(**values)
        for key, value in found._asdict().items():
            kinds: tuple[type, ...] = (int, float) if key in ("low", "median", "high") else (int,)
            if type(value) not in kinds or not abs(value) <= sys.float_info.max:
                raise ValueError(f"the baseline of {name!r:.40} has {key} {value!r:.40}, expected a finite number")
        if not (found.images > 0 and found.low <= found.median <= found.high):
            raise ValueError(f"the baseline of {name!r:.40} has no quartiles of good images")
        if max(found.images, found.compared) > _MOST:
            raise ValueError(f"the baseline of {name!r:.40} has more than {_MOST} images")
        if not 0 <= found.unfamiliar <= found.compared:
            raise ValueError(f"the baseline of {name!r:.40} has {found.unfamiliar} unfamiliar of {found.compared}")
        return found


def ranks(images: int) -> tuple[int, int, int]:
    """Which of `images` scores, counted from 1 in ascending order, are the lower quartile, the median and the upper."""
    low = max((images + 1) // 4, 1)
    return low, (images + 1) // 2, images + 1 - low
