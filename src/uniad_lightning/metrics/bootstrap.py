"""Confidence intervals of the AUROC by the stratified bootstrap, vectorised over the resamples.

Good and defective images are drawn by themselves, each as many as there are, so that every resample has both kinds
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 and 13: percentile interval).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
_CELLS = 1 << 23  # resamples times distinct scores at once, which bounds the memory


class Interval(NamedTuple):
    """The ends of a confidence interval, both in the unit of the number; NaN where there is none."""

    low: float
    high: float


def resampled_aurocs(good: np.ndarray, defective: np.ndarray, *, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """The AUROC, in 0..1, of each resample (R,) of the scores `good` (n,) and `defective` (m,); ties count half.

    NaN everywhere where one of the two is empty.
    """
    if not len(good) or not len(defective):
        return np.full(resamples, np.nan)
    values, place = np.unique(np.concatenate([good, defective]), return_inverse=True)
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // len(values))
    parts = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        below = _drawn(place[: len(good)], rows, len(values), rng)  # (rows, K) good ones at each score
        hits = _drawn(place[len(good) :], rows, len(values), rng)
        ranks = below.cumsum(1) - below / 2
        parts.append(np.einsum("rk,rk->r", hits, ranks) / len(good) / len(defective))
    return np.concatenate(parts)


def interval(resampled: np.ndarray, *, confidence: float = CONFIDENCE) -> Interval:
    """The percentile interval of `resampled` values (R,).

    It has no width where all are equal, as those of scores that do not overlap: then it says nothing.
    """
    if np.isnan(resampled).any():
        return Interval(float("nan"), float("nan"))
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(low), float(high))


def mean_of(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The resamples (R,) of the mean over several categories, each drawn by itself; those that are NaN are left out."""
    known = [part for part in parts if not np.isnan(part).any()]
    return np.mean(known, axis=0) if known else np.full(len(parts[0]) if parts else 1, np.nan)


def _drawn(places: np.ndarray, rows: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `width` places comes up in `rows` draws, with replacement, of as many as `places` (n,) has."""
    drawn = places[rng.integers(len(places), size=(rows, len(places)))]
    flat = (drawn + width * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * width).reshape(rows, width).astype(np.float64)
