"""What a checkpoint's boundary decides of test images: plain values, as the checkpoint keeps them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from uniad_lightning.data.records import Record

LABELS = ("good", "defective")


class Limits(NamedTuple):
    """A boundary: an image with a higher `score` is defective, and a pixel with a higher value than `pixel`."""

    score: float
    pixel: float
    kind: str  # `own` of a category, or `one` for all


def limits_of(calibration: Mapping[str, Any] | None, category: str) -> Limits | None:
    """The boundary for images of `category`: its own where that decides, else the one for all; None without any.

    `calibration` is the entry of that name in a checkpoint; in those of earlier versions the one for all decides.
    """
    if calibration is None:
        return None
    own = calibration["categories"].get(category) if calibration.get("by_category") else None
    boundary = own or calibration["overall"]
    return Limits(boundary["score"], boundary["pixel"], "own" if own else "one")


def is_defective(score: float, limits: Limits) -> bool:
    """The decision for an image."""
    return not score <= limits.score


class ScoredRecord(NamedTuple):
    """A test image with its score, and the boundary that decides, where there is one."""

    record: Record
    score: float
    limits: Limits | None

    @property
    def decision(self) -> str:
        """`good` or `defective`; empty without a boundary."""
        return "" if self.limits is None else LABELS[is_defective(self.score, self.limits)]

    @property
    def mistake(self) -> str:
        """`missed` or `false alarm`; empty for a right decision, and for none."""
        wrong = self.decision not in ("", LABELS[self.record.label])
        return ("false alarm", "missed")[self.record.label] if wrong else ""

    @property
    def badness(self) -> float:
        """How far the score is on the wrong side of the boundary, negative on the right one; without one, of 0."""
        above = self.score - (0.0 if self.limits is None else self.limits.score)
        return -above if self.record.label else above


def scored(
    records: Sequence[Record], scores: Sequence[float], calibration: Mapping[str, Any] | None
) -> list[ScoredRecord]:
    """The `records` of a test split with their `scores` and boundaries."""
    limits = {name: limits_of(calibration, name) for name in {record.category for record in records}}
    return [ScoredRecord(r, score, limits[r.category]) for r, score in zip(records, scores, strict=True)]
