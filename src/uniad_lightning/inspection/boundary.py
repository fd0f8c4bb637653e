"""From scores to decisions: boundaries set on good images, and scores normalised by them.

Not in the paper, which ends in AUROC. An image is defective if its score is *above* the boundary.
"""

import math
import sys
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaincinv

from uniad_lightning.errors import one_line
from uniad_lightning.inspection.baseline import Baseline

CONFIDENCE = 0.95  # of the interval of a false-alarm rate


class Boundary(NamedTuple):
    """The score that separates good from defective images, and the false-alarm rate to expect.

    Attributes:
        score: an image with a higher score is defective.
        pixel: a pixel of the anomaly map with a higher value belongs to a defect; about as many good images have such a
            pixel as have a higher `score`.
        spread: the scale of normalised scores, positive: `score` minus the median of good images, at least their
            standard deviation.
        images: good images that it was set on.
        rate: expected share of good images above it, in [0, 1].
        low: lower end of the 95 % interval of that share.
        high: its upper end.
    """

    score: float
    pixel: float
    spread: float
    images: int
    rate: float
    low: float
    high: float

    def normalised(self, score: float) -> float:
        """`score` in [0, 1]: 0.5 at the boundary, 0.047 a `spread` below it, 0.953 a `spread` above."""
        return 1 / (1 + math.exp(min(-3 * (score - self.score) / self.spread, 700)))


class Calibration(NamedTuple):
    """The boundaries of one detector: one for all categories, and one for each single category.

    Attributes:
        method: how they were set, such as `rate=0.01`.
        overall: for all categories.
        categories: by category.
        by_category: whether an image whose category is not given is decided by the boundary of the category that is
            found in it, rather than by the overall one.
        baselines: by product that the detector can tell apart, what its good images gave; None from earlier versions.
    """

    method: str
    overall: Boundary
    categories: dict[str, Boundary]
    by_category: bool = False
    baselines: dict[str, Baseline] | None = None

    def of(self, category: str | None) -> Boundary:
        """The boundary of a category, or without one the overall one; KeyError for a category without a boundary."""
        return self.overall if category is None else self.categories[category]

    def deciding(self, found: str | None) -> Boundary:
        """The boundary for an image in which the category `found` was found, None where it is not known."""
        return self.categories.get(found or "", self.overall) if self.by_category else self.overall

    def plain(self) -> dict[str, Any]:
        """Plain values, as checkpoints store them."""
        categories = {name: boundary._asdict() for name, boundary in self.categories.items()}
        kept = {"baselines": {name: own._asdict() for name, own in (self.baselines or {}).items()}}
        return {
            "method": self.method,
            "overall": self.overall._asdict(),
            "categories": categories,
            "by_category": self.by_category,
            **({} if self.baselines is None else kept),
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Calibration":
        """The opposite of `plain`; ValueError for anything else, since a file may come from anyone."""
        try:
            stored = values["categories"] if "categories" in values else values["products"]  # of 0.1.0
            categories = {name: _boundary(name, boundary) for name, boundary in stored.items()}
            overall, by_category = _boundary("overall", values["overall"]), values.get("by_category", False)
            kept = values.get("baselines")
            baselines = None if kept is None else {name: Baseline.from_plain(name, own) for name, own in kept.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a calibration without its entries ({one_line(error)})") from None
        if not all(isinstance(name, str) for name in (values.get("method"), *categories, *(baselines or ()))):
            raise ValueError("a calibration with a name that is no text")
        return cls(values["method"], overall, categories, bool(by_category), baselines)


def _boundary(name: Any, values: dict[str, Any]) -> Boundary:
    """The boundary of a file; ValueError for values that no boundary has."""
    boundary = Boundary(**values)
    for key, value in boundary._asdict().items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            raise ValueError(f"the boundary of {name!r:.40} has {key} {value!r:.40}, expected a finite number")
    if boundary.spread <= 0:
        raise ValueError(f"the boundary of {name!r:.40} has spread {boundary.spread!r:.40}, expected one above 0")
    return boundary


def rank_at_rate(count: int, rate: float) -> int:
    """Which of `count` good scores, counted from 1 in ascending order, leaves at most `rate` of good images above it.

    A further good image exceeds the k-th of n scores with probability (n + 1 - k) / (n + 1), for any distribution. With
    fewer than 1 / rate - 1 images no score leaves so few above, and the highest is taken: see `supports`.
    """
    return min(max(math.ceil((count + 1) * (1 - rate) - 1e-9), 1), count)


def supports(count: int, rate: float) -> bool:
    """Whether `count` good images are enough for a boundary with a false-alarm rate of at most `rate`."""
    return 1 / (count + 1) <= rate * (1 + 1e-9)


def at_rate(scores: np.ndarray, peaks: np.ndarray, rate: float) -> Boundary:
    """The boundary with an expected false-alarm rate of `rate`, from scores and map maxima of good images.

    An order statistic with its exact interval (Beta distribution); it assumes no distribution of the scores, only that
    future images are like these.
    """
    rank = rank_at_rate(len(scores), rate)
    return _at(float(np.sort(scores)[rank - 1]), rank, scores, peaks)


def at_score(score: float, scores: np.ndarray, peaks: np.ndarray) -> Boundary:
    """The boundary at a given `score`; its false-alarm rate is estimated from scores and map maxima of good images."""
    rank = int((np.asarray(scores) <= score).sum())
    above, tail = len(scores) - rank, (1 - CONFIDENCE) / 2
    # Clopper-Pearson, since here the score is fixed and the number above it is random, not the other way round.
    low = float(betaincinv(above, rank + 1, tail)) if above else 0.0
    high = float(betaincinv(above + 1, rank, 1 - tail)) if rank else 1.0
    return _at(score, rank, scores, peaks)._replace(low=low, high=high)


def _at(score: float, rank: int, scores: np.ndarray, peaks: np.ndarray) -> Boundary:
    """The boundary with `rank` of the good images at or below it."""
    count = len(scores)
    above = count + 1 - rank
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(betaincinv(above, rank, p)) if rank else 1.0 for p in (tail, 1 - tail))
    pixel = float(np.sort(peaks)[max(rank, 1) - 1])
    spread = max(score - float(np.median(scores)), float(np.std(scores)), 1e-6 * abs(score), 1e-12)
    return Boundary(score, pixel, spread, count, above / (count + 1), low, high)


def score_at_best_f1(good: np.ndarray, defective: np.ndarray) -> float:
    """The boundary score with the largest F1 of the decision, halfway between two neighbouring scores."""
    scores = np.concatenate([good, defective])
    order = np.argsort(-scores, kind="stable")
    labels = np.concatenate([np.zeros(len(good)), np.ones(len(defective))])[order]
    true_positives, predicted = labels.cumsum(), np.arange(1, len(scores) + 1)
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    f1 = np.where(last_of_ties, 2 * true_positives / (predicted + len(defective)), -1)
    best = int(f1.argmax())
    return _below(scores[order], best)


def score_at_recall(good: np.ndarray, defective: np.ndarray, recall: float) -> float:
    """The highest score that leaves at least `recall` of the defective images above it."""
    needed = max(math.ceil(recall * len(defective) - 1e-9), 1)
    lowest = np.sort(defective)[::-1][needed - 1]
    scores = np.sort(np.concatenate([good, defective]))[::-1]
    return _below(scores, int(np.flatnonzero(scores == lowest)[-1]))


def _below(descending: np.ndarray, position: int) -> float:
    """Halfway from the score at `position` to the next lower one; slightly below it where there is none."""
    score = float(descending[position])
    last = position + 1 == len(descending)
    following = score - max(1e-6 * abs(score), 1e-12) if last else float(descending[position + 1])
    middle = (score + following) / 2
    return middle if middle < score else following
