"""From scores to decisions: boundaries that good images set, and scores normalised by them.

Not in the paper, which ends in AUROC. A defective part is one whose score is *above* the boundary.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta

CONFIDENCE = 0.95  # of the interval of a false-alarm rate


class Boundary(NamedTuple):
    """What separates good from defective, and how sure that is.

    Attributes:
        score: an image whose score is above is defective.
        pixel: a pixel of the anomaly map above belongs to a defect; about as many good images have such a pixel as are
            above `score`.
        spread: the scale of normalised scores, positive: `score` minus the median of good images, at least their
            standard deviation.
        images: good images it was set on.
        rate: share of good images expected above it, in [0, 1].
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
    """The boundaries of one detector: one for all products, and one for each where the product is known.

    Attributes:
        method: how they were set, such as `rate=0.01`.
        overall: for all products.
        products: by product.
    """

    method: str
    overall: Boundary
    products: dict[str, Boundary]

    def of(self, product: str | None) -> Boundary:
        """The boundary of a product, or without one the overall one; KeyError for a product without a boundary."""
        return self.overall if product is None else self.products[product]

    def plain(self) -> dict[str, Any]:
        """Plain values, as they lie in checkpoints."""
        products = {name: boundary._asdict() for name, boundary in self.products.items()}
        return {"method": self.method, "overall": self.overall._asdict(), "products": products}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Calibration":
        """The opposite of `plain`."""
        products = {name: Boundary(**boundary) for name, boundary in values["products"].items()}
        return cls(values["method"], Boundary(**values["overall"]), products)


def rank_at_rate(count: int, rate: float) -> int:
    """Which of `count` good scores, counted from 1 in ascending order, leaves at most `rate` of good images above it.

    Of a further good image the chance to lie above the k-th of n is (n + 1 - k) / (n + 1), whatever the distribution.
    With fewer than 1 / rate - 1 images no score leaves so few above, and the last one is taken: `supports` tells.
    """
    return min(max(math.ceil((count + 1) * (1 - rate) - 1e-9), 1), count)


def supports(count: int, rate: float) -> bool:
    """Whether `count` good images are enough for a boundary with a false-alarm rate of at most `rate`."""
    return 1 / (count + 1) <= rate * (1 + 1e-9)


def at_rate(scores: np.ndarray, peaks: np.ndarray, rate: float) -> Boundary:
    """The boundary with an expected false-alarm rate of `rate`, from scores and map maxima of good images.

    An order statistic with its exact interval (Beta distribution), which assumes nothing about how scores are
    distributed but that these images are like those to come.
    """
    rank = rank_at_rate(len(scores), rate)
    return _at(float(np.sort(scores)[rank - 1]), rank, scores, peaks)


def at_score(score: float, scores: np.ndarray, peaks: np.ndarray) -> Boundary:
    """The boundary at a given `score`; its false-alarm rate is estimated from scores and map maxima of good images."""
    rank = int((np.asarray(scores) <= score).sum())
    above, tail = len(scores) - rank, (1 - CONFIDENCE) / 2
    # Clopper-Pearson: here the score is fixed and the number above it drawn, not the other way round.
    low = float(beta.ppf(tail, above, rank + 1)) if above else 0.0
    high = float(beta.ppf(1 - tail, above + 1, rank)) if rank else 1.0
    return _at(score, rank, scores, peaks)._replace(low=low, high=high)


def _at(score: float, rank: int, scores: np.ndarray, peaks: np.ndarray) -> Boundary:
    """The boundary with `rank` of the good images at or below it."""
    count = len(scores)
    above = count + 1 - rank
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(beta.ppf(p, above, rank)) if rank else 1.0 for p in (tail, 1 - tail))
    pixel = float(np.sort(peaks)[max(rank, 1) - 1])
    spread = max(score - float(np.median(scores)), float(np.std(scores)), 1e-6 * abs(score), 1e-12)
    return Boundary(score, pixel, spread, count, above / (count + 1), low, high)


def score_at_best_f1(good: np.ndarray, defective: np.ndarray) -> float:
    """The score at which the decision has its largest F1, halfway between the two neighbouring scores."""
    scores = np.concatenate([good, defective])
    order = np.argsort(-scores, kind="stable")
    hits = np.concatenate([np.zeros(len(good)), np.ones(len(defective))])[order]
    found, called = hits.cumsum(), np.arange(1, len(scores) + 1)
    last_of_ties = np.append(np.diff(scores[order]) != 0, True)
    f1 = np.where(last_of_ties, 2 * found / (called + len(defective)), -1)
    best = int(f1.argmax())
    return _below(scores[order], best)


def score_at_recall(good: np.ndarray, defective: np.ndarray, recall: float) -> float:
    """The highest score that leaves at least `recall` of the defective images above it."""
    needed = max(math.ceil(recall * len(defective) - 1e-9), 1)
    lowest = np.sort(defective)[::-1][needed - 1]
    scores = np.sort(np.concatenate([good, defective]))[::-1]
    return _below(scores, int(np.flatnonzero(scores == lowest)[-1]))


def _below(descending: np.ndarray, position: int) -> float:
    """Halfway from the score at `position` to the next lower one; below it by a hair where there is none."""
    score = float(descending[position])
    last = position + 1 == len(descending)
    following = score - max(1e-6 * abs(score), 1e-12) if last else float(descending[position + 1])
    middle = (score + following) / 2
    return middle if middle < score else following
