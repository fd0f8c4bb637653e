"""What an evaluation reports: AUROC, average precision, F1-max and AUPRO for each category, their mean, and pooled.

One torchmetrics metric serves all categories. Its states have a fixed size whatever the number of pixels and are summed
over the ranks: counts of pixels over bins of score (`histogram.py`), and a table of images. Rows of which the bins
leave a pixel metric uncertain are counted again over finer ones (`recount.py`), from the small anomaly maps and
compressed masks that every rank keeps of the images it saw. Maps of more than `KEPT_CELLS` cells are counted once and
not kept: their rows stay as uncertain as `Evaluation.error_bounds` says.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from uniad_lightning.metrics.histogram import (
    BINS,
    UNDEFINED,
    Counts,
    SeenImage,
    by_score,
    count_images,
    first_level,
    pack,
    ranking,
    region_overlap,
)
from uniad_lightning.metrics.recount import PixelRow, Recount
from uniad_lightning.metrics.refinement import FIRST
from uniad_lightning.metrics.uncertainty import Bounds

POOLED = "pooled"
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
    """The result of `AnomalyMetrics`."""

    categories: dict[str, Row]
    mean: Row  # each number over the categories that define it; `images` is the sum
    mean_over: dict[str, int]  # field of `Row` -> how many categories define it
    pooled: Row  # all images, pixels and regions under one boundary
    refined: tuple[str, ...]  # rows counted more than once: categories in order, then "pooled"
    error_bounds: dict[str, Bounds]  # of all rows; each at most 1e-4 where the maps were kept


class AnomalyMetrics(Metric):
    """Image and pixel metrics of all `categories` (ids are positions) over the `num_images` of a split.

    Call `update` for each batch and then `compute`, on every rank; each image must be seen exactly once by exactly one
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
    visits: Tensor  # (num_images,) int64
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
        self._judged = None if ignored is None else ~ignored.cpu()
        self._seen: list[SeenImage] = []
        self.pixel_counts: dict[str, Counts] = {}  # row -> what its pixel metrics were read off, from `compute` on
        bins, images = (len(categories), BINS), (num_images,)
        whole: dict[str, tuple[int, ...]] = dict.fromkeys(("positives", "negatives"), bins)
        whole |= dict.fromkeys(("image_labels", "image_categories", "visits"), images) | {"not_kept": (1,)}
        for name, shape in {**whole, "regions": bins, "image_scores": images}.items():
            dtype = torch.int64 if name in whole else torch.float64
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")
            # `reset` clones the default: one zero seen many times spares a second copy of each histogram.
            self._defaults[name] = torch.zeros((), dtype=dtype).expand(shape)

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
        maps = maps.detach().to("cpu", torch.float32, copy=True)  # kept, so not to change with the caller's tensor
        scores = scores.detach().to("cpu", torch.float64) + 0.0
        table = {"label": labels.long().cpu(), "category": categories.long().cpu(), "index": indices.long().cpu()}
        self._check(maps, masks, scores, has_mask, table)
        place = table["index"].to(self.visits.device)
        columns = (scores, table["label"], table["category"], torch.ones_like(place))
        states = (self.image_scores, self.image_labels, self.image_categories, self.visits)
        for state, column in zip(states, columns, strict=True):
            state.index_add_(0, place, column.to(place.device))
        size = (masks.shape[1], masks.shape[2])
        masks = masks.cpu() if self._judged is None else masks.cpu() & self._judged
        packed = [pack(mask) if known else b"" for mask, known in zip(masks.numpy(), has_mask.tolist(), strict=True)]
        images = list(map(SeenImage, maps, packed, [size] * len(maps), table["category"].tolist()))
        if maps[0].numel() <= KEPT_CELLS:
            self._seen += images
        else:
            self.not_kept += len(images)
        counts = Counts(self.positives.view(-1), self.negatives.view(-1), self.regions.view(-1))
        count_images(images, counts, lambda keys, ids: first_level(keys).add_(ids * BINS), self._judged)

    def _check(
        self, maps: Tensor, masks: Tensor, scores: Tensor, has_mask: Tensor, table: Mapping[str, Tensor]
    ) -> None:
        lengths = [len(tensor) for tensor in (maps, masks, scores, has_mask, *table.values())]
        if maps.ndim != 3 or masks.ndim != 3 or len({*lengths}) > 1:
            raise ValueError(
                f"maps {tuple(maps.shape)}, masks {tuple(masks.shape)} and lengths {lengths}; "
                "expected (B, h, w), (B, H, W) and one length B for all"
            )
        unusable = ~(maps.isfinite().all(2).all(1) & scores.isfinite())
        if unusable.any():
            image = int(table["index"][unusable][0])
            raise ValueError(f"image {image}: NaN or infinite anomaly map or score; expected finite float32 numbers")
        for (name, column), end in zip(table.items(), (2, len(self.categories), self.num_images), strict=True):
            wrong = (column < 0) | (column >= end)
            if wrong.any():
                image, value = int(table["index"][wrong][0]), int(column[wrong][0])
                raise ValueError(f"image {image}: {name} {value} is out of range; expected 0..{end - 1}")

    def forward(self, *_: Any, **__: Any) -> Any:
        """Raises NotImplementedError: call `update`, and `compute` when all images are in."""
        raise NotImplementedError("AnomalyMetrics has no numbers of one batch; call update(), and compute() at the end")

    def reset(self) -> None:
        """Forgets all images."""
        with torch.inference_mode(False):  # Lightning resets in inference mode; such states could not be used outside
            super().reset()
        self._seen.clear()
        self.pixel_counts = {}

    def compute(self) -> Evaluation:
        """The numbers over all ranks, on each of them. Every rank has to call it.

        Raises ValueError if an image was not seen, or more than once.
        """
        self._check_visits()
        every = len(self.categories)
        spans = {**{name: slice(i, i + 1) for i, name in enumerate(self.categories)}, POOLED: slice(0, every)}
        pixels, refined = self._pixels(spans)
        self.pixel_counts = {name: row.counts.descending() for name, row in pixels.items()}
        rows = {name: self._row(ids, self.pixel_counts[name]) for name, ids in spans.items()}
        bounds = {name: row.bounds for name, row in pixels.items()}
        pooled = rows.pop(POOLED)
        return Evaluation(rows, *mean_row(rows.values()), pooled, refined, bounds)

    def _check_visits(self) -> None:
        found = {"not seen": (self.visits == 0).nonzero(), "seen more than once": (self.visits > 1).nonzero()}
        faults = [f"{len(where)} {what} (first index {int(where[0])})" for what, where in found.items() if len(where)]
        if faults:
            self.unsync(self._is_synced)  # the rank's own states again, so that the metric can be completed
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
            images=self._seen,
            judged=self._judged,
            spans=spans,
            device=self.positives.device,
            synced=self._is_synced,
            group=self.process_group,
        )
        first = {name: PixelRow.of(FIRST, count) for name, count in counts.items()}
        return (first, ()) if int(self.not_kept) else recount.refine(first)

    def _row(self, ids: slice, pixels: Counts) -> Row:
        own = (self.image_categories >= ids.start) & (self.image_categories < ids.stop)
        against = self.image_labels == 0 if {*self.categories[ids]} <= self.foreign else torch.zeros_like(own)
        ranked = own | against
        return Row(
            int(own.sum()),
            *ranking(*by_score(self.image_scores[ranked].cpu(), self.image_labels[ranked].cpu())),
            *ranking(pixels.positives, pixels.negatives),
            region_overlap(pixels.regions, pixels.negatives),
        )

    def _copy_state_dict(self) -> dict[str, Tensor | list[Any]]:
        # The base clones every state before synchronising; `_sync_dist` makes new tensors, so references will do.
        return {name: getattr(self, name) for name in self._defaults}

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any | None = None) -> None:
        # The base gathers the states of all ranks on each rank, and sums there.
        group = process_group or self.process_group
        if dist.get_world_size(group) == 1:
            return
        used = (self.positives.sum(0) + self.negatives.sum(0)).nonzero()
        ends = [-int(used[0]), int(used[-1]) + 1] if len(used) else [-BINS, 0]
        span = torch.tensor(ends, device=self.positives.device)
        dist.all_reduce(span, op=dist.ReduceOp.MAX, group=group)
        low, high = -int(span[0]), int(span[1])
        for name in self._defaults:
            merged = getattr(self, name).clone()
            window = merged[:, low:high] if merged.ndim == 2 else merged
            if window.numel():
                total = window.contiguous()
                dist.all_reduce(total, group=group)
                window.copy_(total)
            setattr(self, name, merged)

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Any:
        # States follow the module to its device and are never cast: `module.to(bfloat16)` would ruin the scores. MPS
        # has no float64.
        moved = super()._apply(fn, exclude_state=(*exclude_state, *self._defaults))
        home = torch.device("cpu") if self.device.type == "mps" else self.device
        for name in self._defaults:
            setattr(self, name, getattr(self, name).to(home))
        return moved


def mean_row(rows: Iterable[Row]) -> tuple[Row, dict[str, int]]:
    """(Mean of each number over the rows that define it, NaN where none does; field -> over how many rows)."""
    listed = list(rows)
    defined = {name: [value for row in listed if (value := getattr(row, name)) == value] for name in Row._fields[1:]}
    means = [sum(values) / len(values) if values else UNDEFINED for values in defined.values()]
    over = {name: len(values) for name, values in defined.items()}
    return Row(sum(row.images for row in listed), *means), over
