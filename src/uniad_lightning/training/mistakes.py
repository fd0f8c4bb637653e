"""The test images that a detector gets wrong, or comes nearest to it."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from uniad_lightning.results.decisions import ScoredRecord


class Worst(NamedTuple):
    """A test image: its place in the split, its score and boundary, and its anomaly map (H, W)."""

    place: int
    image: ScoredRecord
    map: Tensor

    @property
    def rank(self) -> tuple[float, int]:
        """The worst first; the place decides between equal ones, so that any number of processes agree."""
        return -self.image.badness, self.place


class WorstImages:
    """Keeps the `count` good images with the highest scores, and the `count` defective ones with the lowest.

    Scores are taken from the boundary of each image on, where there is one.
    """

    def __init__(self, count: int):
        self.count = count
        self.kept: list[Worst] = []

    def add(self, found: Iterable[Worst]) -> None:
        """Consider further images."""
        for one in found:
            label = one.image.record.label
            same = sorted((kept for kept in self.kept if kept.image.record.label == label), key=_rank)
            others = [kept for kept in self.kept if kept.image.record.label != label]
            if len(same) < self.count or (same and one.rank < same[-1].rank):
                worst = sorted([*same, one._replace(map=one.map.cpu())], key=_rank)
                self.kept = [*others, *worst[: self.count]]

    def ordered(self) -> list[Worst]:
        """Misses, false alarms, then the other defective and good images; each the worst first."""
        return sorted(self.kept, key=lambda one: (not one.image.mistake, not one.image.record.label, one.rank))


def _rank(one: Worst) -> tuple[float, int]:
    return one.rank
