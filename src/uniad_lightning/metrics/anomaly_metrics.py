"""What an evaluation reports: AUROC, average precision, F1-max and AUPRO for each category, their mean, and pooled.

One torchmetrics metric serves all categories. Its states have a fixed size whatever the number of pixels and are summed
over the ranks: counts of pixels over bins of score (`histogram.py`), and a table of images. Rows of which the bins
leave a pixel metric uncertain are counted again over finer ones (`recount.py`), from the small anomaly maps and
compressed masks that every rank keeps of its images. Maps of more than `KEPT_CELLS` cells are counted once and
not kept: the errors of their rows stay within `Evaluation.error_bounds`.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uniad_lightning.metrics.bootstrap import Interval
from uniad_lightning.metrics.coarse_bins import CoarseBins
from uniad_lightning.metrics.histogram import (
    BINS,
    UNDEFINED,
    Counts,
    ScoredImage,
    by_score,
    count_images,
    first_level,
    ranking,
    region_overlap,
)
from uniad_lightning.metrics.recount import PixelRow, Recount
from uniad_lightning.metrics.refinement import FIRST
from uniad_lightning.metrics.scored_batch import ScoredBatch
from uniad_lightning.metrics.summed_states import SummedStates
from uniad_lightning.metrics.uncertainty import Bounds

POOLED = "pooled"
Intervals = Mapping[str, Interval]  # by field of `Row`, of those that have one
KEPT_CELLS = 64 * 64  # the largest map that is kept; at 224x224 those of 100,000 images would take 20 GB


class Row(NamedTuple):
    """The numbers of one category, all but `images` in 0..1; NaN where undefined (one class only, no masks)."""

    images: int
    image_auroc: float
    image_ap: float
    image_f1max: float
    pixel_auroc: float
    pixel_ap: float
    pixel_f1max: float
    aupro: float


class Evaluation(NamedTuple):
    """The result of `AnomalyMetrics`.

    Attributes:
        categories: the numbers of each category.
        mean: each number over the categories that define it; `images` is the sum.
        mean_over: field of `Row` -> how many categories define it.
        pooled: of all images, pixels and regions together.
        refined: rows counted more than once: categories in order, then "pooled".
        error_bounds: of all rows; each at most 1e-4 where the maps were kept.
        intervals: of all rows and `mean`; empty until `with_intervals` adds them.
    """

    categories: dict[str, Row]
    mean: Row
    mean_over: dict[str, int]
    pooled: Row
    refined: tuple[str, ...]
    error_bounds: dict[str, Bounds]
    intervals: Mapping[str, Intervals] = {}


class AnomalyMetrics(SummedStates):
    """Image and pixel metrics of all `categories` (ids are positions) over the `num_images` of a split.

    Call `update` for each batch and then `compute`, on every rank; each image has to be added exactly once, by one
    rank. `forward` is refused: the numbers of a batch mean nothing. `foreign` names categories that were not trained
    on: all their images are defective, so each is ranked against the good images of all categories. Pixels that are
    `ignored` (H, W) bool count neither as good nor as defective.

    Raises ValueError for no image, no category, and a category name that repeats or is "pooled".
    """

    positives: Tensor  # (categories, BINS) int64
    negatives: Tensor  # (categories, BINS) int64
    regions: Tensor  # (categories, BINS) float64, sums to the number of regions
    image_scores: Tensor  # (num_images,) float64
    image_labels: Tensor  # (num_images,) int64
    image_categories: Tensor  # (num_images,) int64
    visits: Tensor  # (num_images,) int64, how often an image was added
    not_kept: Tensor  # (1,) int64, images whose maps were counted and not kept

    def __init__(
        self,
        *,
        categories: Sequence[str],
        num_images: int,
        foreign: Collection[str] = (),
        ignored: Tensor | None = None,
    ):
        super().__init__()
        if num_images < 1 or not categories:
            raise ValueError(f"{num_images} images of {len(categories)} categories; expected at least one of each")
        if len({*categories, POOLED}) != len(categories) + 1:
            raise ValueError(f"categories={list(categories)} repeats a name or holds {POOLED!r}; rename that category")
        self.categories = tuple(categories)
        self.num_images = num_images
        self.foreign = frozenset(foreign)
        self.images: list[ScoredImage] = []  # of this rank, for a recount
        self.spans = {**{name: slice(i, i + 1) for i, name in enumerate(categories)}, POOLED: slice(0, len(categories))}
        self.coarse: dict[str, CoarseBins] = {}  # row -> few bins of its pixels, from `compute` on
        self.pixel_counts: dict[str, Counts] = {}  # row -> what its pixel metrics were read off, from `compute` on
        self.scores: list[float] = []  # of the images of all ranks, in the order of the split, from `compute` on
        self.valid = None if ignored is None else ~ignored.cpu()  # (H, W) bool, pixels that count; None for all
        bins, table = (len(categories), BINS), (num_images,)
        for name in ("positives", "negatives"):
            self.add_summed(name, bins, torch.int64)
        for name in ("image_labels", "image_categories", "visits"):
            self.add_summed(name, table, torch.int64)
        self.add_summed("not_kept", (1,), torch.int64)
        self.add_summed("regions", bins, torch.float64)
        self.add_summed("image_scores", table, torch.float64)

    def update(
        self,
        *,
        maps: Tensor,
        scores: Tensor,
        masks: Tensor,
        has_mask: Tensor,
        labels: Tensor,
        categories: Tensor,
        indices: Tensor,
    ) -> None:
        """Adds B images (none is allowed): anomaly `maps` (B, h, w), upsampled here to the size of the `masks`.

        `scores` (B,), larger = more anomalous; `masks` (B, H, W) bool, True = defective; `has_mask` (B,) bool, False
        keeps an image out of the pixel metrics; `labels` (B,) 0 or 1; `categories` (B,) ids; `indices` (B,) places in
        the split. Maps count as float32, scores as float64; -0 equals +0.

        Raises ValueError, with nothing added, for other shapes, for a NaN or infinite value (naming the image's index)
        and for a label, category or index out of range.
        """
        if not len(maps):
            return
        batch = ScoredBatch(
            maps.detach().to("cpu", torch.float32, copy=True),  # kept, so not to change with the caller's tensor
            scores.detach().to("cpu", torch.float64) + 0.0,
            masks,
            has_mask,
            *(column.long().cpu() for column in (labels, categories, indices)),
        )
        batch.check(categories=len(self.categories), images=self.num_images)
        self._add_to_table(batch)
        self._count_pixels(batch.images(self.valid))

    def _add_to_table(self, batch: ScoredBatch) -> None:
        place = batch.indices.to(self.visits.device)
        columns = (batch.scores, batch.labels, batch.categories, torch.ones_like(place))
        states = (self.image_scores, self.image_labels, self.image_categories, self.visits)
        for state, column in zip(states, columns, strict=True):
            state.index_add_(0, place, column.to(place.device))

    def _count_pixels(self, images: list[ScoredImage]) -> None:
        if images[0].map.numel() <= KEPT_CELLS:
            self.images += images
        else:
            self.not_kept += len(images)
        counts = Counts(self.positives.view(-1), self.negatives.view(-1), self.regions.view(-1))
        count_images(images, counts, lambda keys, ids: first_level(keys).add_(ids * BINS), self.valid)

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raises NotImplementedError: call `update`, and `compute` when all images are in."""
        raise NotImplementedError("AnomalyMetrics has no numbers of one batch; call update(), and compute() at the end")

    def reset(self) -> None:
        """Forgets all images."""
        super().reset()
        self.images.clear()
        self.coarse, self.pixel_counts, self.scores = {}, {}, []

    def compute(self) -> Evaluation:
        """The numbers over all ranks, on each of them. Every rank has to call it.

        Raises ValueError if an image is missing, or was added more than once.
        """
        self._check_visits()
        self.scores = self.image_scores.tolist()
        pixels, refined = self._pixels(self.spans)
        self.pixel_counts = {name: row.counts.descending() for name, row in pixels.items()}
        rows = {name: self._row(ids, self.pixel_counts[name]) for name, ids in self.spans.items()}
        self.coarse = {name: CoarseBins.of(row) for name, row in pixels.items()}
        bounds = {name: row.bounds for name, row in pixels.items()}
        pooled = rows.pop(POOLED)
        return Evaluation(rows, *mean_row(rows.values()), pooled, refined, bounds)

    def _check_visits(self) -> None:
        wrong = {"missing": (self.visits == 0).nonzero(), "added more than once": (self.visits > 1).nonzero()}
        faults = [f"{len(where)} {what} (first index {int(where[0])})" for what, where in wrong.items() if len(where)]
        if faults:
            self.unsync(self.is_synced)  # the rank's own states again, so that the metric can be completed
            raise ValueError(
                f"of {self.num_images} images {' and '.join(faults)}; expected each exactly once over all ranks"
            )

    def _pixels(self, spans: Mapping[str, slice]) -> tuple[dict[str, PixelRow], tuple[str, ...]]:
        """The rows of the categories `spans`, and the names of those counted again."""
        states = self.positives, self.negatives, self.regions
        counts = {
            name: Counts(*(state[ids.start] if ids.stop - ids.start == 1 else state[ids].sum(0) for state in states))
            for name, ids in spans.items()
        }
        recount = Recount(
            images=self.images,
            valid=self.valid,
            spans=spans,
            device=self.positives.device,
            synced=self.is_synced,
            group=self.process_group,
        )
        first = {name: PixelRow.of(FIRST, count) for name, count in counts.items()}
        return (first, ()) if int(self.not_kept) else recount.refine(first)

    def _own(self, ids: slice) -> Tensor:
        return (self.image_categories >= ids.start) & (self.image_categories < ids.stop)

    def ranked(self, ids: slice) -> Tensor:
        """Of which images, (num_images,) bool, the image metrics of the categories `ids` are, within `sync_context`."""
        own = self._own(ids)
        return own | (self.image_labels == 0) if {*self.categories[ids]} <= self.foreign else own

    def _row(self, ids: slice, pixels: Counts) -> Row:
        ranked = self.ranked(ids)
        return Row(
            int(self._own(ids).sum()),
            *ranking(*by_score(self.image_scores[ranked].cpu(), self.image_labels[ranked].cpu())),
            *ranking(pixels.positives, pixels.negatives),
            region_overlap(pixels.regions, pixels.negatives),
        )


def mean_row(rows: Iterable[Row]) -> tuple[Row, dict[str, int]]:
    """(Mean of each number over the rows that define it, NaN where none does; field -> over how many rows)."""
    listed = list(rows)
    defined = {name: [value for row in listed if (value := getattr(row, name)) == value] for name in Row._fields[1:]}
    means = [sum(values) / len(values) if values else UNDEFINED for values in defined.values()]
    over = {name: len(values) for name, values in defined.items()}
    return Row(sum(row.images for row in listed), *means), over
