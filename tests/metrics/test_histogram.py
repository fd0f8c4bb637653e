"""The counting of scores and the numbers read off counts: invariants, and scikit-learn and adeval as oracles."""

import math

import numpy as np
import pytest
import torch
from adeval.au_pro import calculate_au_pro
from scipy import ndimage

from support.oracles import empty, scikit_learn, threshold_loop
from uniad_lightning.files.mask_bits import compress_mask
from uniad_lightning.metrics import histogram
from uniad_lightning.metrics.histogram import (
    BINS,
    ScoredImage,
    by_score,
    count_images,
    first_level,
    ranking,
    region_overlap,
    region_weights,
    sort_keys,
)


def aupro_of(scores, masks):
    """AUPRO through exact counts: a bin for each distinct score."""
    values, place = torch.from_numpy(scores).unique(return_inverse=True)
    counts = empty(len(values))
    counts.add(place, torch.from_numpy(masks), torch.from_numpy(region_weights(masks)))
    descending = counts.descending()
    return region_overlap(descending.regions, descending.negatives)


def defects(images=6, size=24, seed=0):
    generator = np.random.default_rng(seed)
    masks = generator.random((images, size, size)) < 0.02
    masks[: images // 2] = ndimage.binary_dilation(masks[: images // 2], structure=np.ones((1, 3, 2)))
    masks[-1] = False
    scores = ndimage.gaussian_filter(generator.normal(size=masks.shape) + 1.5 * masks, (0, 1, 1))
    return scores.astype(np.float32), masks


def test_keys_order_every_kind_of_float():
    tiny = 1e-45  # the smallest denormal
    ordered = torch.tensor(
        [-3e38, -1e30, -2.0, -1.0, -1e-30, -tiny, 0.0, tiny, 1e-38, 1e-30, 1.0, 1.0000001, 2.0, 3e38]
    )
    keys = sort_keys(ordered)
    assert (keys.diff() > 0).all()
    assert (first_level(keys).diff() >= 0).all()
    assert first_level(keys).min() >= 0
    assert first_level(keys).max() < BINS
    assert sort_keys(torch.tensor([-0.0])) == sort_keys(torch.tensor([0.0]))


@pytest.mark.parametrize("kind", ["distinct", "tied", "below chance"])
def test_ranking_is_scikit_learns(kind):
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(500, generator=generator) < 0.3).long()
    scores = torch.randn(500, generator=generator, dtype=torch.float64) + labels * (-1 if kind == "below chance" else 1)
    scores = scores.round() if kind == "tied" else scores
    numbers = ranking(*by_score(scores, labels))
    assert numbers == pytest.approx(scikit_learn(labels, scores), abs=1e-12)
    assert (numbers[0] < 0.5) == (kind == "below chance")


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], []])
def test_one_class_is_undefined(labels):
    numbers = ranking(*by_score(torch.arange(len(labels)).double(), torch.tensor(labels, dtype=torch.int64)))
    assert all(map(math.isnan, numbers))


def test_aupro_is_the_threshold_loops():
    scores, masks = defects()
    assert aupro_of(scores, masks) == pytest.approx(threshold_loop(scores, masks), abs=1e-12)
    tied = scores.round(1)
    assert aupro_of(tied, masks) == pytest.approx(threshold_loop(tied, masks), abs=1e-12)


def test_aupro_is_adevals():
    scores, masks = defects(images=10)
    expected, _ = calculate_au_pro(list(masks), list(scores), num_thresholds=int((~masks).sum()))
    assert aupro_of(scores, masks) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("jump", [(3, 7), (1, 9), (0, 10)])
def test_aupro_is_interpolated_at_the_limit(jump):
    # Two thresholds; the curve goes (0, 0), (jump[0] / 10, 0.5), (1, 1).
    first = jump[0] / 10
    at_limit = 0.5 + 0.5 * (0.3 - first) / (1 - first)
    expected = (first * 0.25 + (0.3 - first) * (0.5 + at_limit) / 2) / 0.3
    assert region_overlap(torch.tensor([1.0, 1.0]).double(), torch.tensor(jump)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("regions", "negatives"), [([0.0], [5]), ([1.0], [0]), ([], [])])
def test_aupro_without_regions_or_good_pixels_is_undefined(regions, negatives):
    counts = torch.tensor(regions, dtype=torch.float64), torch.tensor(negatives, dtype=torch.int64)
    assert math.isnan(region_overlap(*counts))


def test_regions_are_joined_by_corners_and_not_across_images():
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, [0, 1, 3], [0, 1, 3]] = True  # a diagonal pair, and a single pixel
    masks[1, 3, 3] = True  # behind that single pixel
    assert region_weights(masks).tolist() == [0.5, 0.5, 1.0, 1.0]


def test_counts_do_not_depend_on_the_chunks(monkeypatch):
    scores, masks = defects()
    images = [
        ScoredImage(torch.from_numpy(score[::3, ::3]), compress_mask(mask), mask.shape, 0, 0)
        for score, mask in zip(scores, masks, strict=True)
    ]
    images.insert(
        2, ScoredImage(torch.zeros(5, 4), compress_mask(np.ones((7, 9), dtype=bool)), (7, 9), 0, 0)
    )  # of another size
    images.insert(5, ScoredImage(torch.zeros(8, 8), b"", (24, 24), 0, 0))  # without a mask: not counted
    whole, chunked = empty(BINS), empty(BINS)
    count_images(images, whole, lambda keys, _: first_level(keys))
    monkeypatch.setattr(histogram, "PIXELS_AT_ONCE", 24 * 24 * 2)
    count_images(images, chunked, lambda keys, _: first_level(keys))
    assert whole.positives.equal(chunked.positives)
    assert whole.negatives.equal(chunked.negatives)
    assert torch.allclose(whole.regions, chunked.regions, rtol=0, atol=1e-12)
    assert int((whole.positives + whole.negatives).sum()) == masks.size + 63
    assert int(whole.positives.sum()) == masks.sum() + 63
