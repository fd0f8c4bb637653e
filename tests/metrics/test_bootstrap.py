"""Intervals of the AUROC: against a plain loop with scikit-learn's AUROC, and how often they hold the truth."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from uniad_lightning.metrics.bootstrap import interval, mean_of, multiplicities, resampled_rankings


def scores(rng, good, defective, shift=1.5, digits=8):
    return rng.normal(0, 1, good).round(digits), rng.normal(shift, 1, defective).round(digits)


def resampled_aurocs(good, defective, *, seed, resamples=1000):
    labels = np.repeat([0, 1], [len(good), len(defective)])
    drawn = multiplicities(labels, seed=seed, resamples=resamples)
    return resampled_rankings(np.concatenate([good, defective]), labels, drawn)[0]


@pytest.mark.parametrize("digits", [8, 0])  # 0: many ties
def test_a_resample_has_the_auroc_of_its_images(digits):
    good, defective = scores(np.random.default_rng(0), 17, 11, digits=digits)
    found = resampled_aurocs(good, defective, seed=3, resamples=50)
    rng = np.random.default_rng(3)
    drawn_good = rng.integers(len(good), size=(50, len(good)))
    drawn_defective = rng.integers(len(defective), size=(50, len(defective)))
    labels = [0] * len(good) + [1] * len(defective)
    expected = [
        roc_auc_score(labels, np.concatenate([good[g], defective[d]]))
        for g, d in zip(drawn_good, drawn_defective, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_resamples_in_parts_are_of_the_same_distribution(monkeypatch):
    good, defective = scores(np.random.default_rng(1), 40, 30)
    whole = interval(resampled_aurocs(good, defective, seed=0, resamples=4000))
    monkeypatch.setattr("uniad_lightning.metrics.bootstrap._CELLS", 70 * 13)
    parts = resampled_aurocs(good, defective, seed=0, resamples=4000)
    assert len(parts) == 4000
    np.testing.assert_allclose(interval(parts), whole, atol=0.01)


def test_intervals_hold_the_true_auroc_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth = norm.cdf(1.5 / np.sqrt(2))
    held = 0
    for repetition in range(400):
        low, high = interval(resampled_aurocs(*scores(rng, 60, 50), seed=repetition, resamples=400))
        held += low <= truth <= high
    assert 0.90 <= held / 400 <= 0.98, held / 400


def test_the_seed_decides():
    good, defective = scores(np.random.default_rng(0), 20, 20)
    first, again, other = (resampled_aurocs(good, defective, seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_mean_is_narrower_than_its_parts_and_leaves_undefined_ones_out():
    rng = np.random.default_rng(0)
    parts = [resampled_aurocs(*scores(rng, 50, 50), seed=seed) for seed in range(6)]
    undefined = resampled_aurocs(np.zeros(3), np.zeros(0), seed=0)
    assert np.isnan(interval(undefined)).all()
    low, high = interval(mean_of([*parts, undefined]))
    assert high - low < 0.6 * min(np.subtract(*interval(part)[::-1]) for part in parts)
    assert np.isnan(interval(mean_of([undefined]))).all()


def test_scores_that_do_not_overlap_have_an_interval_without_width():
    assert interval(resampled_aurocs(np.zeros(5), np.ones(4), seed=0)) == (1.0, 1.0)
