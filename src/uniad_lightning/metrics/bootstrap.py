"""Confidence intervals by the stratified bootstrap of images, vectorised over the resamples.

The images of a stratum, such as the good ones of a category, are drawn by themselves, as many as there are, so that
every resample has both kinds (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13:
percentile interval).

Letters: N images, R resamples, K distinct scores or bins of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit

from uniad_lightning.metrics.histogram import LIMIT

RESAMPLES = 1000
CONFIDENCE = 0.95
_CELLS = 1 << 23  # resamples times images at once, which bounds the memory

ROUNDING = 1e-9  # a value so near to 0 or 1 is meant to be it


class Interval(NamedTuple):
    """The ends of a confidence interval, both in the unit of the number; NaN where there is none."""

    low: float
    high: float


NO_INTERVAL = Interval(float("nan"), float("nan"))


def multiplicities(strata: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each image is in each resample, (R, N) uint16; `strata` (N,) are integers, drawn in ascending order."""
    rng = np.random.default_rng(seed)
    drawn = np.zeros((resamples, len(strata)), dtype=np.uint16)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        step = max(1, _CELLS // len(members))
        for start in range(0, resamples, step):
            rows = min(step, resamples - start)
            drawn[start : start + rows, members] = _drawn(len(members), rows, rng)
    return drawn


def _drawn(count: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` places comes up in `rows` draws, with replacement, of as many: (rows, count)."""
    places = rng.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
    return np.bincount(places.ravel(), minlength=rows * count).reshape(rows, count)


def resampled_rankings(scores: np.ndarray, labels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """AUROC, average precision and F1-max, in 0..1, of each resample: (3, R).

    `scores` (N,), larger = more anomalous; `labels` (N,) 0 or 1; `drawn` (R, N) as of `multiplicities`. Ties count as
    in `histogram.ranking`. NaN where a resample lacks a class.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, defective = scores[order], labels[order] == 1
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    step = max(1, _CELLS // max(len(scores), 1))
    parts = []
    for start in range(0, len(drawn), step):
        times = drawn[start : start + step, order].astype(np.float64)
        positives, negatives = (np.add.reduceat(times * kind, starts, axis=1) for kind in (defective, ~defective))
        parts.append(rankings(positives, negatives))
    return np.concatenate(parts, axis=1)


def rankings(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """`histogram.ranking` of each row of counts (R, K) at descending thresholds, which may be empty: (3, R)."""
    hits, alarms = positives.cumsum(1), negatives.cumsum(1)
    total, others = hits[:, -1:], alarms[:, -1:]
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is meant
        auroc = (negatives / others * ((hits - positives / 2) / total)).sum(1)
        average = (positives / total * (hits / np.maximum(hits + alarms, 1))).sum(1)
    f1 = (2 * hits / np.maximum(hits + alarms + total, 1)).max(1)
    return np.where(np.isnan(auroc), np.nan, np.stack([auroc, average, f1]))


def overlaps(regions: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    """`histogram.region_overlap` (AUPRO) of each row of counts (R, K) at descending thresholds, which may be empty."""
    rate, share = (np.pad(counts.cumsum(1), ((0, 0), (1, 0))) for counts in (negatives, regions))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate, share = rate / rate[:, -1:], share / share[:, -1:]
        width = np.diff(rate.clip(max=LIMIT))
        cut = np.nan_to_num(width / np.diff(rate))  # where the limit lies within a bin, only so much of it counts
    middle = share[:, :-1] + np.diff(share) * cut / 2
    return (middle * width).sum(1) / LIMIT


def corrected(resampled: np.ndarray, estimate: float) -> np.ndarray:
    """The `resampled` values (R,) of a number in 0..1 whose value on all images is `estimate`, without their bias.

    F1-max and average precision of resamples are too large on average, as is the estimate itself, by about as much:
    twice that is taken off, as logits, whose spread depends less on the number (Efron and Tibshirani, chapters 10 and
    13; measured in `docs/uncertainty.md`). Values of 0 and 1 count as half as far inside as the next.
    """
    values = np.append(resampled, estimate)
    inside = values[(values > ROUNDING) & (values < 1 - ROUNDING)]
    if not len(inside):
        return resampled
    margin = min(inside.min(), 1 - inside.max()) / 2
    logits = logit(values.clip(margin, 1 - margin))
    return expit(logits[:-1] - 2 * (logits[:-1].mean() - logits[-1]))


def interval(resampled: np.ndarray, *, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of `resampled` values (R,).

    It has no width where all are equal, as those of scores that do not overlap: then it says nothing.
    """
    if np.isnan(resampled).any():
        return NO_INTERVAL
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_of(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The resamples (R,) of the mean over several categories, each drawn by itself; those that are NaN are left out."""
    known = [part for part in parts if not np.isnan(part).any()]
    return np.mean(known, axis=0) if known else np.full(len(parts[0]) if parts else 1, np.nan)
