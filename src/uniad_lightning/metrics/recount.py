"""The pixels of an evaluation counted again, in finer bins, as far as the bins before leave a metric uncertain."""

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from itertools import compress
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from uniad_lightning.metrics.histogram import Counts, ScoredImage, count_images
from uniad_lightning.metrics.refinement import Partition
from uniad_lightning.metrics.uncertainty import Bounds, error_bounds, uncertainty

TOLERANCE = 1e-4  # of each pixel metric; beyond it a row is refined
SHARED_BUDGET = 1 << 16  # bins of the second count, for each category
OWN_BUDGET = 1 << 20  # bins of a further one, for scores that cluster within those before


class PixelRow(NamedTuple):
    """The pixels of one row of the results, counted."""

    partition: Partition  # of K bins
    counts: Counts  # (K,)
    bounds: Bounds

    @classmethod
    def of(cls, partition: Partition, counts: Counts) -> "PixelRow":
        """With its bounds."""
        return cls(partition, counts, error_bounds(counts, partition.tied))

    @property
    def uncertain(self) -> bool:
        """Whether a metric may be wrong by more than `TOLERANCE`."""
        return any(bound > TOLERANCE for bound in self.bounds)


class Recount:
    """Counts rows again until none is uncertain, which true ties never are.

    `spans` are the category ids of each row, `images` those of this rank, of which the `valid` pixels (H, W) bool
    count, None for all. The counts are on `device`; where they are `synced`, those of all ranks of the `group` are
    summed, and every rank has to call `refine`.
    """

    def __init__(
        self,
        *,
        images: Collection[ScoredImage],
        valid: Tensor | None,
        spans: Mapping[str, slice],
        device: torch.device,
        synced: bool,
        group: Any,
    ):
        self.images = images
        self.valid = valid
        self.spans = spans
        self.device = device
        self.synced = synced
        self.group = group

    def refine(self, rows: Mapping[str, PixelRow]) -> tuple[dict[str, PixelRow], tuple[str, ...]]:
        """The `rows` made certain, and the names of those counted again: all together first, then each alone."""
        refined = self._uncertain(rows)
        known = dict(rows)
        if refined:
            known |= self._count({name: known[name] for name in refined}, SHARED_BUDGET)
        for name in refined:
            while self._uncertain({name: known[name]}):
                known |= self._count({name: known[name]}, OWN_BUDGET)
        return known, refined

    def _uncertain(self, rows: Mapping[str, PixelRow]) -> tuple[str, ...]:
        flags = self._agreed(torch.tensor([row.uncertain for row in rows.values()]))
        return tuple(compress(rows, flags.tolist()))

    def _agreed(self, decision: Tensor) -> Tensor:
        """The first rank's `decision` on every rank: from the same counts another processor may round differently."""
        if not self.synced:
            return decision
        sent = decision.to(self.device)
        dist.broadcast(sent, group=self.group, group_src=0)
        return sent.cpu()

    def _count(self, rows: Mapping[str, PixelRow], budget: int) -> dict[str, PixelRow]:
        """The `rows`, which share one partition, over finer bins, at most `budget`.

        One row is counted as one, several by category, so that a pixel is counted once for its category and the pool.
        """
        partition = self._divide(list(rows.values()), budget)
        ids = sorted({i for name in rows for i in range(self.spans[name].start, self.spans[name].stop)})
        place = torch.zeros(ids[-1] + 1, dtype=torch.int64)  # category -> its part of the counts
        if len(rows) > 1:
            place[ids] = torch.arange(len(ids))
        parts, bins = int(place.max()) + 1, len(partition.left)
        whole = torch.zeros(parts * bins, dtype=torch.int64, device=self.device)
        counts = Counts(whole, whole.clone(), whole.double())
        starts = place.to(self.device) * bins
        images = (image for image in self.images if image.category in ids)
        count_images(images, counts, lambda keys, own: partition.bins(keys).add_(starts[own]), self.valid)
        for count in counts:
            if self.synced:
                dist.all_reduce(count, group=self.group)
        owns = {name: place[self.spans[name]].unique().to(self.device) for name in rows}
        each = {name: Counts(*(count.view(parts, bins)[own].sum(0) for count in counts)) for name, own in owns.items()}
        return {name: PixelRow.of(partition, count) for name, count in each.items()}

    def _divide(self, rows: Sequence[PixelRow], budget: int) -> Partition:
        """Finer bins where any of the `rows` is uncertain."""
        partition = rows[0].partition
        together = Counts(*(reduce(torch.add, counts) for counts in zip(*(row.counts for row in rows), strict=True)))
        uncertain = reduce(torch.add, (uncertainty(row.counts, partition.tied) for row in rows))
        bits = self._agreed(partition.allot(together, uncertain, budget=budget))
        return partition.finer(bits, device=self.device)
