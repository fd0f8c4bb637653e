"""How far numbers computed from counts may be from those of the scores themselves, whose order within a bin is lost.

For each bin there is a best order of its pixels and a worst one, ties included; the difference is its part of the
error. Only bins with positives and negatives, or with several positives, have one.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from uniad_lightning.metrics.histogram import LIMIT, UNDEFINED, Counts


class Bounds(NamedTuple):
    """The largest possible error of each pixel metric of a row, in 0..1; NaN where the metric is undefined."""

    pixel_auroc: float
    pixel_ap: float
    pixel_f1max: float
    aupro: float


class _Margins(NamedTuple):
    """For K' used bins, by how much their pixels' order can raise or lower each metric of `Bounds`, float64 (4, K')."""

    above: Tensor
    below: Tensor
    places: Tensor  # (K',) int64, which bins of the counts


def error_bounds(counts: Counts, tied: Tensor) -> Bounds:
    """The largest errors of metrics of `counts` (K,), ascending; bins marked by `tied` (K,) hold one score."""
    margins = _margins(counts, tied)
    if margins is None:
        return Bounds(*[UNDEFINED] * len(Bounds._fields))
    auroc, average, _, overlap = torch.maximum(margins.above.sum(1), margins.below.sum(1)).tolist()
    return Bounds(auroc, average, float(margins.above[2].max()), overlap)  # F1-max is one threshold's, not a sum


def uncertainty(counts: Counts, tied: Tensor) -> Tensor:
    """What each bin (K,) adds to those errors, float64 on the CPU; arguments as those of `error_bounds`."""
    each = torch.zeros(len(tied), dtype=torch.float64)
    margins = _margins(counts, tied)
    return each if margins is None else each.index_add_(0, margins.places, (margins.above + margins.below).sum(0))


def _margins(counts: Counts, tied: Tensor) -> _Margins | None:
    """None where a class is missing."""
    places = (counts.positives + counts.negatives).nonzero()[:, 0].flip(0)
    positives, negatives, regions = (count.index_select(0, places).cpu().double() for count in counts)
    places = places.cpu()
    if not positives.any() or not negatives.any():
        return None
    ordered = tied[places] | (positives == 0) | (positives + negatives == 1)
    pairs = positives * negatives / 2 / positives.sum() / negatives.sum()
    sides = ((pairs, pairs), _average_precision(positives, negatives), _f1max(positives, negatives, ordered))
    above, below = (torch.stack(side) for side in zip(*sides, _aupro(regions, negatives), strict=True))
    return _Margins(above.clamp_(min=0).masked_fill_(ordered, 0), below.clamp_(min=0).masked_fill_(ordered, 0), places)


def _average_precision(positives: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Best are all positives in one tie and then the negatives, worst the negatives and then one positive at a time."""
    hits, alarms = positives.cumsum(0), negatives.cumsum(0)
    tie = positives * hits / (hits + alarms)
    best = positives * hits / (hits + alarms - negatives).clamp(min=1)
    # The i-th positive of the worst order has the precision 1 - A / (A + H + i); the sum of 1 / (A + H + i) is at most
    # the integral of 1 / x over the half-open unit interval around each term, since 1 / x is convex.
    worst = positives - alarms * torch.log1p(positives / (alarms + hits - positives + 0.5))
    return (best - tie) / positives.sum(), (tie - worst) / positives.sum()


def _f1max(positives: Tensor, negatives: Tensor, ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Ends of bins are thresholds whatever the order, so that only a threshold within a bin can be better."""
    hits, alarms, total = positives.cumsum(0), negatives.cumsum(0), positives.sum()
    reached = (2 * hits / (hits + alarms + total)).max()
    return 2 * hits / (hits + alarms - negatives + total) - reached, torch.zeros_like(positives)


def _aupro(regions: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Best are a bin's defective pixels before its good ones, worst after them; up to the limit."""
    rate, share = negatives.cumsum(0) / negatives.sum(), regions.cumsum(0) / regions.sum()
    before, start = (torch.cat([curve.new_zeros(1), curve[:-1]]) for curve in (share, rate))
    width = rate.clamp(max=LIMIT) - start.clamp(max=LIMIT)
    reached = torch.lerp(before, share, (width / (rate - start)).nan_to_num(0))  # where the limit cuts the bin
    middle = (before + reached) / 2
    return (share - middle) * width / LIMIT, (middle - before) * width / LIMIT
