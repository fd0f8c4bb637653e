"""Finer bins, and what bins leave uncertain: held against the orders that the scores in a bin can have."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from support.oracles import count, empty, scikit_learn, threshold_loop
from uniad_lightning.metrics.histogram import BINS, Counts, ranking, region_overlap, region_weights, sort_keys
from uniad_lightning.metrics.refinement import FIRST
from uniad_lightning.metrics.uncertainty import Bounds, error_bounds, uncertainty

CPU = torch.device("cpu")
NO_TIES = torch.zeros(BINS, dtype=torch.bool)


def divided(scores, labels, *, budget, partition=FIRST):
    """(`partition` divided once by what it leaves uncertain, the counts over it)."""
    counts = count(scores, labels, partition.bins, len(partition.left))
    bits = partition.allot(counts, uncertainty(counts, partition.tied), budget=budget)
    finer = partition.finer(bits, device=CPU)
    return finer, count(scores, labels, finer.bins, len(finer.left))


def largest(bounds):
    return max(bounds)


def spread_and_narrow():
    generator = torch.Generator().manual_seed(0)
    scores = torch.cat([1000 + torch.rand(4000, generator=generator), torch.randn(4000, generator=generator).exp()])
    return scores, torch.rand(8000, generator=generator) < 0.4


@pytest.mark.parametrize("budget", [1 << 16, 1 << 20])
def test_finer_bins_keep_the_order_and_their_promises(budget):
    scores, labels = spread_and_narrow()
    partition, counts = divided(scores, labels, budget=budget)
    bins = partition.bins(sort_keys(scores))
    assert len(partition.left) <= budget
    assert (bins[scores.argsort()].diff() >= 0).all()
    assert bins.max() < len(partition.left)
    assert partition.tied.any()
    for tied in bins[partition.tied[bins] & labels].unique()[:200]:
        assert len(scores[bins == tied].unique()) == 1
    coarse = count(scores, labels, FIRST.bins, BINS)
    assert largest(error_bounds(counts, partition.tied)) < largest(error_bounds(coarse, FIRST.tied)) / 20


@pytest.mark.parametrize("budget", [1, 20_000])
def test_dividing_again_and_again_ends_at_true_ties(budget):
    scores, labels = spread_and_narrow()
    scores[:200] = scores[200:400]  # ties, of which some are of both kinds
    partition, passes = FIRST, 0
    counts = count(scores, labels, partition.bins, BINS)
    while largest(error_bounds(counts, partition.tied)) > 0:
        partition, counts = divided(scores, labels, budget=budget, partition=partition)
        bins = partition.bins(sort_keys(scores))
        assert (bins[scores.argsort()].diff() >= 0).all()
        passes += 1
    assert passes <= 14
    descending = counts.descending()
    assert ranking(descending.positives, descending.negatives) == pytest.approx(
        scikit_learn(labels, np.unique(scores, return_inverse=True)[1]), abs=1e-12
    )


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_key_of_an_unused_bin_joins_its_neighbours(steps):
    # A second pass may differ from the first by a rounding; its pixels must land somewhere.
    scores, labels = torch.tensor([1.0, 1.0000001, 2.0, 2.0000002]), torch.tensor([True, False, True, False])
    partition = FIRST
    for _ in range(steps):
        partition, _ = divided(scores, labels, budget=1 if steps > 1 else 1 << 20, partition=partition)
    bins = partition.bins(sort_keys(torch.tensor([-5.0, 1.0, 1.5, 2.0, 9.0])))
    assert steps > 1 or bins.tolist() == sorted(bins.tolist())
    assert bins.min() >= 0
    assert bins.max() < len(partition.left)


def test_bins_of_good_pixels_alone_are_joined_where_nothing_is_lost():
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(5000, generator=generator).exp(), torch.zeros(5000, dtype=torch.bool)
    labels[scores.argsort()[[-1, -40]]] = True
    partition, counts = divided(scores, labels, budget=1)
    assert len(partition.left) < 20
    assert int(counts.negatives.sum()) == 4998
    descending = counts.descending()
    found = ranking(descending.positives, descending.negatives)
    assert found[:2] == pytest.approx(scikit_learn(labels, np.unique(scores, return_inverse=True)[1])[:2], abs=1e-3)


def regional(scores, masks, place, bins):
    counts = empty(bins)
    counts.add(place(torch.from_numpy(scores)), torch.from_numpy(masks), torch.from_numpy(region_weights(masks)))
    return counts


@pytest.mark.parametrize("seed", range(40))
def test_no_order_within_the_bins_is_outside_the_bounds(seed):
    """Scores of 0 to 11, of which a bin holds two to twelve: the numbers of the bins and those of the scores."""
    generator = np.random.default_rng(seed)
    masks = generator.random((3, 12, 12)) < generator.choice([0.02, 0.1, 0.5])
    masks[0, 0, 0], masks[0, 5, 5] = True, False
    masks[1] = ndimage.binary_dilation(masks[1])
    scores = (generator.integers(0, 12, masks.shape) + generator.integers(0, 4) * masks).astype(np.float32)
    if seed % 2:  # positives above negatives or below them within bins, so that the bounds are reached
        scores = scores // 4 * 4 + (masks if seed % 4 == 1 else ~masks) * 1.0
    width = generator.choice([2, 3, 4, 12])
    counts = regional(scores, masks, lambda s: (s // width).long(), 16)
    bounds = error_bounds(counts, torch.zeros(16, dtype=torch.bool))
    descending = counts.descending()
    found = (
        *ranking(descending.positives, descending.negatives),
        region_overlap(descending.regions, descending.negatives),
    )
    exact = (*scikit_learn(masks.ravel(), scores.ravel()), threshold_loop(scores, masks))
    for name, value, truth, bound in zip(Bounds._fields, found, exact, bounds, strict=True):
        assert abs(value - truth) <= bound + 1e-12, name


def test_the_bounds_are_reached():
    """One bin above one good pixel; its pixels in their best order, their worst, and all alike."""
    masks = np.zeros((1, 2, 4), dtype=bool)
    masks[0, 0, :2] = True
    places = torch.tensor([[[1, 1, 1, 1], [1, 0, 0, 0]]])
    counts = empty(2)
    counts.add(places, torch.from_numpy(masks), torch.from_numpy(region_weights(masks)))
    bounds = error_bounds(counts, torch.zeros(2, dtype=torch.bool))
    descending = counts.descending()
    auroc, average, f1 = ranking(descending.positives, descending.negatives)
    best = np.array([[[9, 9, 5, 5], [5, 1, 1, 1]]], dtype=np.float32)
    exact = scikit_learn(masks.ravel(), best.ravel())
    assert exact == pytest.approx((auroc + bounds.pixel_auroc, average + bounds.pixel_ap, f1 + bounds.pixel_f1max))
    worst = np.array([[[2, 2, 5, 5], [5, 1, 1, 1]]], dtype=np.float32)
    assert scikit_learn(masks.ravel(), worst.ravel())[0] == pytest.approx(auroc - bounds.pixel_auroc)
    overlap = region_overlap(descending.regions, descending.negatives)
    assert threshold_loop(best, masks) == pytest.approx(overlap + bounds.aupro)
    assert error_bounds(counts, torch.ones(2, dtype=torch.bool)) == Bounds(0, 0, 0, 0)  # all alike: no uncertainty


@pytest.mark.parametrize("defective", [True, False])
def test_one_class_has_neither_bounds_nor_uncertainty(defective):
    counts = count(torch.rand(50), torch.full((50,), defective), FIRST.bins, BINS)
    assert all(map(math.isnan, error_bounds(counts, NO_TIES)))
    assert not uncertainty(counts, NO_TIES).any()
    assert all(map(math.isnan, error_bounds(Counts(*(c[:0] for c in counts)), NO_TIES[:0])))
