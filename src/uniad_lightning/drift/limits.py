"""How many of a window's images may lie beyond a calibration's quantile before it is called drift.

Of n good scores, the share of their distribution above the k-th smallest is Beta(n + 1 - k, k), whatever that is
(Wilks, Annals of Mathematical Statistics, 1941), so that how many of m images are above it is beta-binomial. With k the
median this is Mathisen's two-sample test (there, 1943). It allows for a calibration of few images by itself: its limits
are wider then. What is added here are defective parts, which are no drift: each image is taken to be one of them with a
chance of up to `defects`, wherever that makes a limit wider.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.stats import beta, binom

from uniad_lightning.inspection.baseline import Baseline, ranks

_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(400)  # on [-1, 1]
_REACH = 40  # standard deviations of a share: exponential tails, as of Beta(1, n), are below 1e-15 there


class Limits(NamedTuple):
    """Counts among the `window` last images of a product from which, or down to which, they are not as at calibration.

    A limit that no count can reach is `window` + 1, or -1.

    Attributes:
        window: images that are counted.
        unfamiliar: from so many unfamiliar images.
        higher: from so many scores above the calibration's median.
        lower: down to so many above it.
        wider: down to so many scores between the calibration's quartiles.
        narrower: from so many between them.
    """

    window: int
    unfamiliar: int
    higher: int
    lower: int
    wider: int
    narrower: int

    @property
    def can_tell(self) -> bool:
        """Whether scores that are all higher would be drift: not so of too few images, in the window or before."""
        return self.higher <= self.window

    def passed(self, *, unfamiliar: int, above: int, inside: int) -> list[str]:
        """The names of the limits that these counts reach; `above` the median, `inside` the quartiles."""
        reached = {
            "unfamiliar": unfamiliar >= self.unfamiliar,
            "higher": above >= self.higher,
            "lower": above <= self.lower,
            "wider": inside <= self.wider,
            "narrower": inside >= self.narrower,
        }
        return [name for name, is_reached in reached.items() if is_reached]


def limits_of(baseline: Baseline, window: int, *, defects: float, level: float) -> Limits:
    """The limits that each single one of a window's counts reaches with a chance of at most `level` without drift."""
    return _limits(baseline.images, baseline.compared, baseline.unfamiliar, window, defects, level)


@lru_cache(maxsize=1000)  # products often have as many images; a search takes 20 ms
def _limits(images: int, compared: int, unfamiliar: int, window: int, defects: float, level: float) -> Limits:
    low, median, high = ranks(images)

    def more(share: np.ndarray) -> np.ndarray:
        return defects + (1 - defects) * share

    def fewer(share: np.ndarray) -> np.ndarray:
        return (1 - defects) * share

    above = (images + 1 - median, median)
    inside = (high - low, images + 1 - high + low)
    strange = (unfamiliar + 1, compared - unfamiliar)
    return Limits(
        window,
        unfamiliar=_from(window, strange, more, level),
        higher=_from(window, above, more, level),
        lower=_down_to(window, above, None, level),
        wider=_down_to(window, inside, fewer, level),
        narrower=_from(window, inside, None, level),
    )


Shares = Callable[[np.ndarray], np.ndarray] | None  # the share counted, of that of good images; None: the same


def chance_of(count: int, window: int, of_good: tuple[int, int], shares: Shares, *, or_more: bool) -> float:
    """The chance of `count` or more (or fewer) of `window` images, whose share among good ones is Beta(`of_good`)."""
    mean, deviation = beta.mean(*of_good), beta.std(*of_good)
    start, end = max(mean - _REACH * deviation, 0.0), min(mean + _REACH * deviation, 1.0)
    good = start + (_NODES + 1) / 2 * (end - start)
    weights = _NODE_WEIGHTS / 2 * (end - start) * beta.pdf(good, *of_good)
    share = good if shares is None else shares(good)
    chances = binom.sf(count - 1, window, share) if or_more else binom.cdf(count, window, share)
    return float(weights @ chances)


def _from(window: int, of_good: tuple[int, int], shares: Shares, level: float) -> int:
    """The smallest count that is reached with a chance of at most `level`."""
    if min(of_good) < 1:
        return window + 1
    least, most = 0, window + 1
    while least < most:
        middle = (least + most) // 2
        if chance_of(middle, window, of_good, shares, or_more=True) > level:
            least = middle + 1
        else:
            most = middle
    return least


def _down_to(window: int, of_good: tuple[int, int], shares: Shares, level: float) -> int:
    """The largest count that is not exceeded with a chance of at most `level`."""
    if min(of_good) < 1:
        return -1
    least, most = -1, window
    while least < most:
        middle = (least + most + 1) // 2
        if chance_of(middle, window, of_good, shares, or_more=False) > level:
            most = middle - 1
        else:
            least = middle
    return least
