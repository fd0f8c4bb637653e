"""Limits of counts: SciPy's beta-binomial as oracle, the rate of alarms over lines, defective parts, too few images."""

import re

import numpy as np
import pytest
from scipy.stats import betabinom, hypergeom

from uniad_lightning.drift.limits import chance_of, limits_of
from uniad_lightning.drift.monitor import DRIFT, OK, UNKNOWN, Monitor
from uniad_lightning.inspection.baseline import Baseline, ranks
from uniad_lightning.inspection.boundary import Boundary, Calibration

EDGE = Boundary(3.0, 3.0, 2.0, 50, 0.01, 0.0, 0.1)


def calibration(*sizes, seed=0):
    rng = np.random.default_rng(seed)
    known = {f"part {size}": Baseline.of(rng.normal(size=size), compared=size, unfamiliar=0) for size in sizes}
    return Calibration("rate=0.01", EDGE, {}, by_category=True, baselines=known)


def states(monitor, scores, *, familiar=True, product=""):
    found = []
    for score in scores:
        monitor.add(product, float(score), familiar=familiar)
        found.append(monitor.product(product).state)
    return found


@pytest.mark.parametrize("images", [1, 2, 3, 20, 51, 200, 3000])
@pytest.mark.parametrize("window", [10, 200])
def test_chances_are_those_of_a_beta_binomial(images, window):
    low, median, high = ranks(images)
    for a, b in ((images + 1 - median, median), (high - low, images + 1 - high + low), (1, images)):
        if a < 1:
            continue
        for count in (0, 1, window // 3, window - 1, window):
            more, fewer = (chance_of(count, window, (a, b), None, or_more=more) for more in (True, False))
            assert more == pytest.approx(betabinom.sf(count - 1, window, a, b), rel=1e-6, abs=1e-10)
            assert fewer == pytest.approx(betabinom.cdf(count, window, a, b), rel=1e-6, abs=1e-10)


def test_unfamiliar_images_without_defects_are_compared_by_fishers_exact_test():
    """Of 3 of 40 and x of 100, x is at the limit where SciPy's hypergeometric tail first is at the level."""
    known = Baseline(40, 0.0, 1.0, 2.0, compared=40, unfamiliar=3)
    limit = limits_of(known, 100, defects=0.0, level=1e-3).unfamiliar
    fisher = [hypergeom.sf(x - 1, 140, x + 3, 100) for x in range(101)]
    assert fisher[limit] <= 1e-3 < fisher[limit - 1]


def test_limits_are_the_outermost_counts_within_the_level():
    known = calibration(50).baselines["part 50"]
    found = limits_of(known, 100, defects=0.0, level=1e-3)
    _, median, _ = ranks(50)
    above = betabinom(100, 51 - median, median)
    assert above.sf(found.higher - 1) <= 1e-3 < above.sf(found.higher - 2)
    assert above.cdf(found.lower) <= 1e-3 < above.cdf(found.lower + 1)
    wide = limits_of(known, 100, defects=0.1, level=1e-3)
    assert (wide.higher > found.higher, wide.lower == found.lower) == (True, True)
    assert (wide.wider < found.wider, wide.narrower == found.narrower) == (True, True)
    assert wide.unfamiliar > found.unfamiliar


@pytest.mark.parametrize("size", [20, 50, 200])
@pytest.mark.parametrize("defects", [0.0, 0.1])
def test_a_line_that_does_not_drift_is_left_alone(size, defects):
    """60,000 images on twenty calibrations: at the measured rate (docs/drift.md) 0.06 alarms are to be expected."""
    rng = np.random.default_rng(7)
    for seed in range(20):
        monitor = Monitor(calibration(size, seed=seed), window=100, defects=0.1)
        scores = rng.normal(size=3000)
        scores[rng.random(3000) < defects] = 9.0
        assert set(states(monitor, scores)) == {UNKNOWN, OK}


def test_the_level_of_a_single_window_is_kept():
    """At a level that can be counted: of 4000 calibrations and windows of their own, at most that share is beyond."""
    rng, level, beyond = np.random.default_rng(1), 0.02, dict.fromkeys(("higher", "lower", "wider", "narrower"), 0)
    for _ in range(4000):
        known = Baseline.of(rng.exponential(size=20), compared=0, unfamiliar=0)
        limits = limits_of(known, 50, defects=0.0, level=level)
        window = rng.exponential(size=50)
        inside = int(((window > known.low) & (window <= known.high)).sum())
        for name in limits.passed(unfamiliar=0, above=int((window > known.median).sum()), inside=inside):
            beyond[name] += 1
    for name, count in beyond.items():
        assert 0.2 * level < count / 4000 < level + 4 * (level / 4000) ** 0.5, name


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda good: good + 2, "score above the median of good images"),
        (lambda good: good - 2, "only 0 score above the median|only 1 score above the median|only 2 score above"),
        (lambda good: 6 * good, "only .* score between the quartiles"),
        (lambda good: 0.2 * good, "score between the quartiles"),
        (lambda good: 0 * good + 0.3, "100 score above the median .*, 100 score between the quartiles"),
    ],
    ids=["higher", "lower", "wider", "narrower", "the same frame again and again"],
)
def test_drift_is_found_and_ends(change, words):
    rng = np.random.default_rng(3)
    monitor = Monitor(calibration(200), window=100, defects=0.1)
    assert states(monitor, rng.normal(size=300))[-1] == OK
    changes = [monitor.add("part 200", float(score), familiar=True) for score in change(rng.normal(size=100))]
    (alarm,) = filter(None, changes)
    assert (alarm.product, alarm.state) == ("part 200", DRIFT)
    assert monitor.state == DRIFT
    assert re.search(words, monitor.products["part 200"].why), monitor.products["part 200"].why
    changes = [monitor.add("part 200", float(score), familiar=True) for score in rng.normal(size=200)]
    assert [one.state for one in filter(None, changes)] == [OK]


def test_unfamiliar_images_are_drift_whatever_their_scores():
    rng = np.random.default_rng(3)
    monitor = Monitor(calibration(50), window=100, defects=0.1)
    states(monitor, rng.normal(size=100))
    assert states(monitor, rng.normal(size=60), familiar=False)[-1] == DRIFT
    assert "are unfamiliar (over below " in monitor.products["part 50"].why


def test_too_few_images_tell_nothing():
    monitor = Monitor(calibration(3), window=100, defects=0.1)
    assert set(states(monitor, np.full(300, 99.0))) == {UNKNOWN}
    assert monitor.products["part 3"].why == "too few for any comparison: 3 good images, a window of 100"
    assert monitor.products["part 3"].limits()["higher"] is None


def test_products_have_windows_of_their_own():
    rng = np.random.default_rng(5)
    monitor = Monitor(calibration(100, 200), window=50, defects=0.1)
    for score in rng.normal(size=200):
        monitor.add("part 100", float(score), familiar=True)
        monitor.add("part 200", float(score) + 4, familiar=True)
        monitor.add("", float(score) + 4, familiar=True)  # of neither, as far as is known
    assert {name: own.state for name, own in monitor.products.items()} == {
        "part 100": OK, "part 200": DRIFT, "": UNKNOWN
    }  # fmt: skip
    assert monitor.products[""].why == "the calibration had no good images of it; it had: part 100, part 200"
    assert monitor.products["part 200"].statistics().images == 50
