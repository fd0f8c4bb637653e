"""Finer bins where the first ones leave the metrics uncertain: the low bits of the keys in those bins, step by step.

A bin of one single float32 cannot be divided, so that only true ties remain in the end.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from uniad_lightning.metrics.histogram import BINS, LOW_BITS, Counts, first_level

JOINED = -1  # in place of a number of bits: the bin is joined with its neighbour


class Step(NamedTuple):
    """From each of K bins to finer ones: to `offsets` + (the key's bits in `masks`, without the last `shifts`)."""

    masks: Tensor  # (K,) int32, the low bits of a key that a bin does not distinguish
    shifts: Tensor  # (K,) int32, how many of them the finer bins do not distinguish either
    offsets: Tensor  # (K,) int64


class Partition(NamedTuple):
    """The division of all scores into K bins, ascending: the first level's, divided by `steps` in turn."""

    steps: tuple[Step, ...]
    left: Tensor  # (K,) int64 on the CPU, how many of the low bits of its keys a bin does not distinguish

    @property
    def tied(self) -> Tensor:
        """(K,) bool: the bin holds one single float32."""
        return self.left == 0

    def bins(self, keys: Tensor) -> Tensor:
        """The bin (int64) of each key; a key whose bin was unused when it was divided joins its neighbour."""
        flat = keys.flatten()
        places = first_level(flat)
        for step in self.steps:
            low = step.masks.index_select(0, places).bitwise_and_(flat)
            low.bitwise_right_shift_(step.shifts.index_select(0, places))
            places = step.offsets.index_select(0, places).add_(low)
        return places.view(keys.shape)

    def allot(self, counts: Counts, uncertainty: Tensor, *, budget: int) -> Tensor:
        """By how many bits, int8 (K,), to divide each bin, for at most `budget` finer ones (or 2 for each used one).

        Dividing a bin by 2^bits leaves about that part of its `uncertainty` (K,) float64; the sum is least where 2^bits
        is proportional to its root. Adjacent bins of negatives alone, whose order does not matter, are joined into one.
        """
        positives, used = counts.positives.cpu(), (counts.positives + counts.negatives).cpu().nonzero()[:, 0]
        has_positives = positives[used] > 0
        kept = used[has_positives | torch.cat([has_positives[1:], has_positives.new_ones(1)])]
        ideal, left = uncertainty[kept].log2() / 2, self.left[kept]  # -inf where nothing is uncertain
        budget = max(budget, 2 * len(kept))  # so at least one uncertain bin is divided

        def bits_at(level: float) -> Tensor:
            return (ideal + level).floor().clamp(min=0).minimum(left).long()

        low, high = -64.0, 64.0  # the lowest level divides no bin, the highest all that matter, down to one float32
        while high - low > 1e-6:
            middle = (low + high) / 2
            low, high = (middle, high) if int((1 << bits_at(middle)).sum()) <= budget else (low, middle)
        return torch.full_like(self.left, JOINED, dtype=torch.int8).index_copy_(0, kept, bits_at(low).to(torch.int8))

    def finer(self, bits: Tensor, *, device: torch.device) -> "Partition":
        """Each bin divided by its `bits` (K,) int8 on the CPU, as `allot` gives them; for keys on `device`."""
        own = bits != JOINED
        sizes = torch.where(own, 1 << bits.clamp(min=0).long(), 0)
        shifts = self.left - bits.clamp(min=0)
        offsets = (sizes.cumsum(0) - sizes).clamp(max=int(sizes.sum()) - 1)
        step = Step(((1 << self.left) - 1).int().to(device), shifts.int().to(device), offsets.to(device))
        return Partition((*self.steps, step), shifts[own].repeat_interleave(sizes[own]))


FIRST = Partition((), torch.full((BINS,), LOW_BITS))
