"""What an evaluation reports: AUROC, average precision, F1-max and AUPRO for each category, their mean, and pooled.

One torchmetrics metric serves all categories. Its states have a fixed size whatever the number of pixels and are summed
over the ranks: counts of pixels over bins of score (`histogram.py`), and a table of images. Rows whose pixel AUROC is
left uncertain by the bins are counted a second time over finer ones that they share, and what is uncertain still once
more by itself, from the small anomaly maps and compressed masks that every rank keeps of the images it saw.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric

from uniad_lightning.histogram import (
    BINS,
    UNDEFINED,
    Counts,
    Refinement,
    SeenImage,
    by_score,
    count_images,
    first_level,
    pack,
    ranking,
    region_overlap,
)

POOLED = "pooled"
TOLERANCE = 1e-4  # of the pixel AUROC; beyond it a row is refined
SHARED_BUDGET = 1 << 16  # bins of the second count, for each category
OWN_BUDGET = 1 << 20  # bins of the third, for scores that cluster within those of the second


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
    refined: tuple[str, ...]  # rows counted a second time: categories in order, then "pooled"
    error_bound: dict[str, float]  # row -> largest possible error of its pixel AUROC; NaN where that is undefined


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
        self._seen: dict[int, SeenImage] = {}
        bins, images = (len(categories), BINS), (num_images,)
        whole: dict[str, tuple[int, ...]] = dict.fromkeys(("positives", "negatives"), bins)
        whole |= dict.fromkeys(("image_labels", "image_categories", "visits"), images)
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
        self._seen.update(zip(table["index"].tolist(), images, strict=True))
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

    def local_maps(self) -> dict[int, Tensor]:
        """Index -> anomaly map (h, w), float32 on the CPU, of the images that this rank saw since the last `reset`."""
        return {index: image.map for index, image in self._seen.items()}

    def reset(self) -> None:
        """Forgets all images."""
        with torch.inference_mode(False):  # Lightning resets in inference mode; such states could not be used outside
            super().reset()
        self._seen.clear()

    def compute(self) -> Evaluation:
        """The numbers over all ranks, on each of them. Every rank has to call it.

        Raises ValueError if an image was not seen, or more than once.
        """
        self._check_visits()
        every = len(self.categories)
        spans = {**{name: slice(i, i + 1) for i, name in enumerate(self.categories)}, POOLED: slice(0, every)}
        counts, bounds, refined = self._pixels(spans)
        rows = {name: self._row(ids, counts[name]) for name, ids in spans.items()}
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

    def _pixels(self, spans: Mapping[str, slice]) -> tuple[dict[str, Counts], dict[str, float], tuple[str, ...]]:
        """For rows of the categories `spans`: (counts, error bounds of their AUROC, names of those counted again)."""
        states = self.positives, self.negatives, self.regions
        counts = {
            name: Counts(*(state[ids.start] if ids.stop - ids.start == 1 else state[ids].sum(0) for state in states))
            for name, ids in spans.items()
        }
        bounds = {name: count.auroc_error() for name, count in counts.items()}
        refined = tuple(name for name, bound in bounds.items() if bound > TOLERANCE)
        if refined:
            self._recount({name: spans[name] for name in refined}, SHARED_BUDGET, counts, bounds)
        for name in refined:
            if bounds[name] > TOLERANCE:
                self._recount({name: spans[name]}, OWN_BUDGET, counts, bounds)
        return counts, bounds, refined

    def _recount(
        self, spans: Mapping[str, slice], budget: int, counts: dict[str, Counts], bounds: dict[str, float]
    ) -> None:
        """Replaces `counts` and `bounds` of the rows `spans` by those over finer bins, summed over the ranks.

        One row is counted as one, several by category, so that a pixel is counted once for its category and the pool.
        """
        ids = sorted({i for span in spans.values() for i in range(span.start, span.stop)})
        place = torch.zeros(len(self.categories), dtype=torch.int64)  # category -> its part of the counts
        if len(spans) > 1:
            place[ids] = torch.arange(len(ids))
        parts = int(place.max()) + 1
        first = Counts(*(state[ids].sum(0) for state in (self.positives, self.negatives, self.regions)))
        refinement = Refinement.plan(first, budget=budget)
        bins, device = len(refinement.tied), refinement.tied.device
        whole = torch.zeros(parts * bins, dtype=torch.int64, device=device)
        finer = Counts(whole, whole.clone(), whole.double())
        starts = place.to(device) * bins
        images = (image for image in self._seen.values() if image.category in ids)
        count_images(
            images, finer, lambda keys, categories: refinement.bins(keys).add_(starts[categories]), self._judged
        )
        for count in finer:
            if self._is_synced:
                dist.all_reduce(count, group=self.process_group)
        for name, span in spans.items():
            own = place[span].unique().to(device)
            counts[name] = Counts(*(count.view(parts, bins)[own].sum(0) for count in finer))
            bounds[name] = counts[name].auroc_error(refinement.tied)

    def _row(self, ids: slice, counts: Counts) -> Row:
        own = (self.image_categories >= ids.start) & (self.image_categories < ids.stop)
        against = self.image_labels == 0 if {*self.categories[ids]} <= self.foreign else torch.zeros_like(own)
        ranked = own | against
        pixels = counts.descending()
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
