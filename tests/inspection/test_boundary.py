"""Boundaries: what they promise, by simulation; what they refuse; what they keep."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from uniad_lightning.inspection.boundary import (
    Boundary,
    Calibration,
    at_rate,
    at_score,
    rank_at_rate,
    score_at_best_f1,
    score_at_recall,
    supports,
)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "rate"), [(50, 0.1), (200, 0.02), (99, 0.01), (37, 0.2)])
def test_the_expected_false_alarm_rate_is_kept_on_new_images(count, rate):
    rng = np.random.default_rng(0)
    good = rng.lognormal(size=(4000, count + 50))
    above = [(row[count:] > at_rate(row[:count], row[:count], rate).score).mean() for row in good]
    expected = at_rate(good[0, :count], good[0, :count], rate).rate
    assert expected <= rate + 1e-9
    assert np.mean(above) == pytest.approx(expected, abs=4 * np.std(above) / len(above) ** 0.5)


def test_the_interval_covers_the_true_rate_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(2000):
        boundary = at_rate(rng.uniform(size=120), np.zeros(120), 0.05)
        covered.append(boundary.low <= 1 - boundary.score <= boundary.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_too_few_images_for_a_rate_take_the_highest_score_and_say_so():
    assert supports(99, 0.01)
    assert not supports(98, 0.01)
    assert rank_at_rate(99, 0.01) == 99
    assert rank_at_rate(199, 0.01) == 198
    boundary = at_rate(np.array([3.0, 1.0, 2.0]), np.array([1.0, 5.0, 2.0]), 0.01)
    assert (boundary.score, boundary.pixel, boundary.images, boundary.rate) == (3.0, 5.0, 3, 0.25)
    assert at_rate(np.array([2.0]), np.array([2.0]), 0.01).spread > 0


def test_normalised_scores_keep_the_order_and_have_the_boundary_at_one_half():
    boundary = at_rate(np.arange(101.0), np.arange(101.0), 0.1)
    scores = np.linspace(-1e6, 1e6, 1001)
    normalised = [boundary.normalised(score) for score in scores]
    assert all(0 <= a <= b <= 1 for a, b in zip(normalised, normalised[1:], strict=False))
    assert boundary.normalised(boundary.score) == 0.5
    assert boundary.normalised(50.0) == pytest.approx(1 / (1 + np.exp(3)))


@pytest.mark.parametrize("seed", range(20))
def test_the_best_f1_is_that_of_a_search_over_all_scores(seed):
    rng = np.random.default_rng(seed)
    good, defective = rng.integers(0, 12, 30) / 4, rng.integers(4, 16, 20) / 4  # with ties
    scores, labels = np.concatenate([good, defective]), np.repeat([0, 1], [30, 20])
    best = max(f1_score(labels, scores > value, zero_division=0) for value in [*scores, -1])
    assert f1_score(labels, scores > score_at_best_f1(good, defective)) == pytest.approx(best)


@pytest.mark.parametrize("recall", [0.05, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("seed", range(5))
def test_the_score_at_a_recall_is_the_highest_that_has_it(seed, recall):
    rng = np.random.default_rng(seed)
    good, defective = rng.integers(0, 12, 30) / 4, rng.integers(4, 16, 20) / 4
    score = score_at_recall(good, defective, recall)
    assert (defective > score).mean() >= recall
    next_higher = min(value for value in [*good, *defective] if value > score)
    assert (defective > next_higher).mean() < recall


def test_a_boundary_at_a_score_estimates_its_rate_from_good_images():
    good = np.arange(10.0)
    boundary = at_score(6.5, good, good * 2)
    assert boundary.rate == pytest.approx(4 / 11)
    assert boundary.pixel == 12.0  # as many good images have a pixel above as are above the score: 3
    assert boundary.low < 0.3 < boundary.high
    below_all = at_score(-1.0, good, good)
    assert (below_all.rate, below_all.high) == (1.0, 1.0)


def test_a_calibration_survives_as_plain_values():
    one = Boundary(1.0, 2.0, 0.5, 100, 0.01, 0.0, 0.03)
    calibration = Calibration("rate=0.01", one, {"screw": one._replace(score=3.0)})
    assert Calibration.from_plain(calibration.plain()) == calibration
    assert calibration.of(None).score == 1.0
    assert calibration.of("screw").score == 3.0


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "count"), [(0.01, 50), (0.02, 30), (0.2, 40)])
def test_the_interval_of_a_given_score_is_not_too_narrow(rate, count):
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(3000):
        boundary = at_score(1 - rate, rng.uniform(size=count), np.zeros(count))
        covered.append(boundary.low <= rate <= boundary.high)
    assert np.mean(covered) >= 0.945
