"""Intervals of an evaluation: against a plain loop that evaluates every resample, and how often they hold the truth."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.nn.functional import adaptive_avg_pool2d

from support.oracles import scikit_learn, threshold_loop
from uniad_lightning.metrics import anomaly_metrics
from uniad_lightning.metrics.anomaly_metrics import POOLED, AnomalyMetrics, Row
from uniad_lightning.metrics.bootstrap import corrected, interval, mean_of, multiplicities, resampled_rankings
from uniad_lightning.metrics.intervals import SEED, with_intervals
from uniad_lightning.scoring import upsample

CATEGORIES, SIZE, GRID = ("bottle", "cable"), (40, 40), (10, 10)
PIXELS = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro")


def fabricate(images=24, *, strength=1.5):
    """Arguments of `update` for images of both categories in turn, half of them defective."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) // 2 % 2
    masks = torch.zeros(images, *SIZE, dtype=torch.bool)
    for index in labels.nonzero()[:, 0].tolist():
        top, left, extent = torch.randint(5, 16, (3,), generator=generator).tolist()
        masks[index, top : top + extent, left : left + extent] = True
        masks[index, 39, 0] = True  # a region of one pixel
    lift = strength * torch.rand(images, 1, 1, generator=generator) * adaptive_avg_pool2d(masks.float(), GRID)
    maps = 1 + lift + torch.randn(images, *GRID, generator=generator).abs()
    return {
        "maps": maps, "scores": maps.amax((1, 2)), "masks": masks, "has_mask": torch.ones(images, dtype=torch.bool),
        "labels": labels, "categories": torch.arange(images) % 2, "indices": torch.arange(images),
    }  # fmt: skip


def evaluate(data, resamples=200, **options):
    metrics = AnomalyMetrics(categories=CATEGORIES, num_images=len(data["maps"]), **options)
    metrics.update(**data)
    return with_intervals(metrics.compute(), metrics, resamples=resamples)


def repeated(data, times, chosen):
    """The metrics of the `chosen` images, image i as often as `times` says, each copy an image of its own."""
    images = np.flatnonzero(chosen).repeat(times[chosen])
    maps, masks = upsample(data["maps"][images], SIZE).numpy(), data["masks"][images].numpy()
    labels, scores = data["labels"][images].numpy(), data["scores"][images].numpy()
    ranks = np.unique(maps, return_inverse=True)[1].reshape(maps.shape)
    pixel = scikit_learn(masks.ravel(), ranks.ravel())
    return [*scikit_learn(labels, scores), *pixel, threshold_loop(ranks, masks)]


def test_an_interval_is_that_of_a_loop_over_resampled_evaluations():
    data, resamples = fabricate(), 15
    found = evaluate(data, resamples)
    ids = data["categories"].numpy()
    drawn = multiplicities(2 * ids + data["labels"].numpy(), seed=SEED, resamples=resamples)
    everything = {**{name: ids == i for i, name in enumerate(CATEGORIES)}, POOLED: ids >= 0}
    loops = {
        name: np.transpose([repeated(data, times, chosen) for times in drawn]) for name, chosen in everything.items()
    }
    loops["mean"] = np.mean([loops[name] for name in CATEGORIES], axis=0)
    rows = {**found.categories, "mean": found.mean, POOLED: found.pooled}
    for name, loop in loops.items():
        for metric, values in zip(Row._fields[1:], loop, strict=True):
            expected = interval(corrected(values, getattr(rows[name], metric)))
            assert found.intervals[name][metric] == pytest.approx(expected, abs=2e-3), (name, metric)


def test_the_images_of_a_category_and_label_are_drawn_among_themselves():
    strata = np.array([3, 0, 1, 0, 3, 3, 1, 0])
    drawn = multiplicities(strata, seed=1, resamples=500)
    for stratum, count in ((0, 3), (1, 2), (3, 3)):
        assert (drawn[:, strata == stratum].sum(1) == count).all()
    assert drawn.mean(0) == pytest.approx(np.ones(8), abs=0.15)
    assert (multiplicities(strata, seed=1, resamples=500) == drawn).all()


def test_the_bias_of_resamples_is_taken_off_twice_and_none_leaves_0_to_1():
    values = np.array([0.6, 0.7, 0.8, 1.0])
    logits = np.log([0.6 / 0.4, 0.7 / 0.3, 0.8 / 0.2, 9.0])  # 1 counts as 0.9, half as far inside as 0.8
    expected = 1 / (1 + np.exp(-(logits - 2 * (logits.mean() - np.log(0.7 / 0.3)))))
    np.testing.assert_allclose(corrected(values, 0.7), expected, atol=1e-12)
    assert (corrected(np.ones(3), 1.0) == 1).all()
    assert corrected(np.array([1 - 2e-16, 0.9, 0.8]), 0.85) == pytest.approx(
        corrected(np.array([1.0, 0.9, 0.8]), 0.85), abs=1e-12
    )  # 1 but for rounding


def test_more_images_make_narrower_intervals():
    few, many = (evaluate(fabricate(images)).intervals["mean"] for images in (24, 240))
    for metric in Row._fields[1:]:
        assert many[metric].high - many[metric].low < 0.6 * (few[metric].high - few[metric].low), metric


def test_scores_that_do_not_overlap_have_no_interval():
    data = fabricate()
    data["scores"] = data["labels"].double()
    found = evaluate(data)
    assert found.mean.image_auroc == 1
    assert all(not {"image_auroc", "image_ap", "image_f1max"} & part.keys() for part in found.intervals.values())
    assert {*PIXELS} <= found.intervals["mean"].keys()


def test_pixel_metrics_have_no_interval_without_masks_nor_where_maps_were_not_kept(monkeypatch):
    data = fabricate()
    whole = evaluate(data).intervals["mean"]
    unmasked = evaluate({**data, "has_mask": torch.zeros(len(data["maps"]), dtype=torch.bool)}).intervals["mean"]
    monkeypatch.setattr(anomaly_metrics, "KEPT_CELLS", 99)
    large = evaluate(data).intervals["mean"]
    assert large == unmasked == {metric: whole[metric] for metric in Row._fields[1:4]}


def test_a_category_without_an_interval_takes_none_of_the_mean_away_from_the_others():
    data = fabricate()
    data["has_mask"] = data["categories"] == 0
    found = evaluate(data)
    assert found.intervals["mean"]["pixel_auroc"] == found.intervals["bottle"]["pixel_auroc"]
    data["labels"][data["categories"] == 1] = 1
    foreign = evaluate(data, foreign={"cable"}).intervals  # ranked against the good bottles
    assert foreign["cable"]["image_auroc"].low < foreign["cable"]["image_auroc"].high


# How often 95 % intervals hold the true value, by simulation.


def truth(good, defective, shift):
    """AUROC, average precision and F1-max of normal scores, in the limit of many images, by integration."""
    thresholds = np.linspace(-6, 6 + shift, 200_001)
    recall, alarms = norm.sf(thresholds - shift), norm.sf(thresholds)
    found = defective * recall + good * alarms
    average = -np.trapezoid(defective * recall / found, recall)
    return norm.cdf(shift / np.sqrt(2)), average, (2 * defective * recall / (found + defective)).max()


@pytest.mark.slow
@pytest.mark.parametrize(("good", "defective", "shift"), [(60, 50, 1.5), (100, 100, 1.5), (200, 200, 0.5)])
def test_intervals_of_binormal_scores_hold_the_truth_in_92_to_98_of_100(good, defective, shift):
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], [good, defective])
    expected, held, simulations = truth(good, defective, shift), np.zeros(3), 300
    for simulation in range(simulations):
        scores = rng.normal(shift * labels)
        drawn = multiplicities(labels, seed=simulation, resamples=400)
        values = resampled_rankings(scores, labels, np.concatenate([np.ones_like(drawn[:1]), drawn]))
        for i, (estimate, *resampled) in enumerate(values):
            low, high = interval(corrected(np.array(resampled), estimate))
            held[i] += low <= expected[i] <= high
    shares = held / simulations
    assert 0.92 <= shares[0] <= 0.98, shares
    assert (shares[1:] >= 0.89).all(), shares  # average precision and F1-max of few images are biased themselves


@pytest.mark.slow
def test_intervals_of_pixels_that_depend_on_each_other_hold_the_truth():
    """All pixels of an image share a draw; drawing pixels instead of images would give a twentieth of the width."""
    rng, held, simulations, images = np.random.default_rng(0), 0, 150, 60
    true = norm.cdf(1.5 / np.sqrt(2 + 2 * 0.5**2))
    masks = torch.zeros(images, 8, 8, dtype=torch.bool)
    masks[::2, 2:5, 2:6] = True
    labels = (torch.arange(images) + 1) % 2
    for _ in range(simulations):
        shared = rng.normal(0, 0.5, (images, 2, 1, 1))  # of the good pixels of an image, and of its defect
        maps = rng.normal(np.where(masks, 1.5 + shared[:, 1], shared[:, 0]))
        metrics = AnomalyMetrics(categories=["all"], num_images=images)
        metrics.update(
            maps=torch.from_numpy(maps), scores=torch.zeros(images), masks=masks, labels=labels,
            has_mask=torch.ones(images, dtype=torch.bool), categories=torch.zeros(images), indices=torch.arange(images),
        )  # fmt: skip
        low, high = with_intervals(metrics.compute(), metrics, resamples=300).intervals[POOLED]["pixel_auroc"]
        held += low <= true <= high
    assert 0.90 <= held / simulations <= 0.99, held / simulations


def test_a_mean_over_categories_drawn_alone_is_narrower():
    parts = [np.random.default_rng(seed).normal(0.8, 0.05, 1000) for seed in range(4)]
    assert np.std(mean_of(parts)) == pytest.approx(0.025, rel=0.15)
