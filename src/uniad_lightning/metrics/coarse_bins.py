"""Few bins for the pixels of one row of the results, so that each image can have counts of its own."""

from typing import NamedTuple

import torch
from torch import Tensor

from uniad_lightning.metrics.histogram import Counts
from uniad_lightning.metrics.recount import PixelRow
from uniad_lightning.metrics.refinement import Partition

COARSE = 512  # bins at most


class CoarseBins(NamedTuple):
    """A division of all scores into `COARSE` bins, ascending: the K bins of `partition`, adjacent ones joined."""

    partition: Partition
    lookup: Tensor  # (K,) int16, 0..COARSE-1

    @classmethod
    def of(cls, row: PixelRow) -> "CoarseBins":
        """Bins for all pixel metrics of `row` at once."""
        used = (row.counts.positives + row.counts.negatives).nonzero()[:, 0].flip(0)
        place = _places(Counts(*(count.index_select(0, used).cpu() for count in row.counts)))
        lookup = torch.zeros(len(row.partition.left), dtype=torch.int16)
        lookup[used.cpu()] = (COARSE - 1 - place).to(torch.int16)
        return cls(row.partition, lookup)

    def bins(self, keys: Tensor) -> Tensor:
        """The bin (int64) of each key."""
        return self.lookup.to(keys.device)[self.partition.bins(keys)].long()


def _places(counts: Counts) -> Tensor:
    """The coarse bin, int64 from 0 for the highest scores on, of each of the bins (K,), descending and none empty.

    They divide evenly the way down the thresholds, whose length is a third each recall, false-positive rate and the
    logarithm of the number of pixels above: the denominator of precision, which changes most among the highest scores.
    """
    positives, negatives = counts.positives.double().cumsum(0), counts.negatives.double().cumsum(0)
    if len(positives) <= COARSE:
        return torch.arange(len(positives))
    ways = (positives, negatives, (positives + negatives).log1p())
    way = torch.stack([each / each[-1].clamp(min=1) for each in ways]).mean(0)
    return (way * COARSE).ceil().long().sub_(1).clamp_(0, COARSE - 1)
