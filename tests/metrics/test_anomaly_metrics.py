"""The metric of an evaluation: outside oracles, its contract, and two ranks against one."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import adaptive_avg_pool2d

from support.oracles import scikit_learn, threshold_loop
from uniad_lightning.metrics import anomaly_metrics
from uniad_lightning.metrics.anomaly_metrics import POOLED, AnomalyMetrics, Row
from uniad_lightning.metrics.histogram import BINS, Counts, ranking
from uniad_lightning.metrics.intervals import with_intervals
from uniad_lightning.metrics.refinement import FIRST
from uniad_lightning.metrics.uncertainty import error_bounds
from uniad_lightning.scoring import upsample

CATEGORIES = ("bottle", "cable", "capsule")
IMAGES, SIZE, GRID = 18, (48, 48), (12, 12)
KINDS = {
    "smooth": lambda base: base + 1,
    "wide": lambda base: (6 * base).exp(),
    "tied": lambda base: (2 * base).round() / 2,
    "very large": lambda base: base * 1e30,
    "very small": lambda base: base * 1e-30,
    "denormal": lambda base: base * 1e-41,
    "narrow band": lambda base: 1000 + (base - 2).clamp(-2.5, 2.5) / 5,
    "saturated": lambda base: base.clamp(max=0.5),
    "negative": lambda base: base - 10,
    "both signs": lambda base: base - 1,
    "softmax": lambda base: torch.stack([torch.full_like(base, 3), 2 * base]).softmax(0)[1],
    "sigmoid": lambda base: torch.sigmoid(20 * (base - 0.5)),
    "integers": lambda base: (2 * base).round() + 1e6,
    "equal": torch.ones_like,
    "mixture": lambda base: torch.where(base > 1, torch.sigmoid(4 * base), (9 * base).round() / 9 - 2),
    # Two neighbouring floats in each of many bins: the second count does not separate them.
    "clusters": lambda base: (200 * base).round() / 64 * (1 + 2**-23 * (base * 1e4 % 3).floor()),
}
FULL_GRID = ("tied", "saturated", "softmax", "sigmoid", "integers", "equal", "mixture", "clusters")  # not interpolated
TIES = ("tied", "saturated", "integers", "equal")


def fabricate(kind="smooth", images=IMAGES):
    """Arguments of `update` for images of three categories in turn, two in three of them defective."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(images) // 3 % 3 > 0).long()
    masks = torch.zeros(images, *SIZE, dtype=torch.bool)
    for index in labels.nonzero()[:, 0].tolist():
        top, left, extent = torch.randint(6, 22, (3,), generator=generator).tolist()
        masks[index, top : top + extent, left : left + extent] = True
        masks[index, top + extent, left + extent] = True  # joined by its corner
        masks[index, 47, 0] = True  # a region of one pixel
    grid = SIZE if kind in FULL_GRID else GRID
    strength = 4 * torch.rand(images, 1, 1, generator=generator)
    base = strength * adaptive_avg_pool2d(masks.float(), grid) + torch.randn(images, *grid, generator=generator).abs()
    maps = KINDS[kind](base)
    return {
        "maps": maps,
        "scores": maps.amax((1, 2)),
        "masks": masks,
        "has_mask": torch.ones(images, dtype=torch.bool),
        "labels": labels,
        "categories": torch.arange(images) % 3,
        "indices": torch.arange(images),
    }


def pick(data, chosen):
    return {name: column[chosen] for name, column in data.items()}


def metric_of(data, batch=5):
    metric = AnomalyMetrics(categories=CATEGORIES, num_images=len(data["maps"]))
    for start in range(0, len(data["maps"]), batch):
        metric.update(**pick(data, slice(start, start + batch)))
    return metric


def evaluate(data):
    return metric_of(data).compute()


def oracle(data):
    """A row by scikit-learn and by the loop over thresholds."""
    maps, masks = upsample(data["maps"], SIZE).numpy(), data["masks"].numpy()
    pixels = np.unique(maps, return_inverse=True)[1].reshape(maps.shape)  # ranks: scikit-learn ties what is near
    images = np.unique(data["scores"], return_inverse=True)[1]
    image_numbers, pixel_numbers = scikit_learn(data["labels"], images), scikit_learn(masks.ravel(), pixels.ravel())
    return Row(len(maps), *image_numbers, *pixel_numbers, threshold_loop(pixels, masks))


def same(row, expected, tolerance):
    return row == pytest.approx(expected, abs=tolerance, nan_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_oracles(kind):
    data = fabricate(kind)
    evaluation = evaluate(data)
    expected = {name: oracle(pick(data, data["categories"] == i)) for i, name in enumerate(CATEGORIES)}
    means = np.mean([*expected.values()], axis=0)
    expected["pooled"] = oracle(data)
    rows = {**evaluation.categories, "pooled": evaluation.pooled}
    assert list(rows) == list(expected)
    for name, row in rows.items():
        assert same(row[:4], expected[name][:4], 1e-9)
        for metric, bound in evaluation.error_bounds[name]._asdict().items():
            assert abs(getattr(row, metric) - getattr(expected[name], metric)) <= bound + 1e-9, (name, metric)
            assert bound <= (1e-9 if kind in TIES else 1e-4)
    assert evaluation.mean.images == IMAGES
    assert same(evaluation.mean[1:], means[1:], 1e-4)
    assert evaluation.mean_over == dict.fromkeys(Row._fields[1:], 3)


@pytest.mark.parametrize("kind", ["narrow band", "saturated", "denormal"])
def test_scores_crowded_into_few_bins_are_refined_until_only_ties_are_left(kind):
    evaluation = evaluate(fabricate(kind))
    assert evaluation.refined == (*CATEGORIES, "pooled")
    assert max(map(max, evaluation.error_bounds.values())) < 1e-6


def test_scores_spread_over_many_bins_are_not_refined():
    evaluation = evaluate(fabricate("wide"))
    assert "pooled" not in evaluation.refined
    assert 0 < max(map(max, evaluation.error_bounds.values())) <= 1e-4


def test_few_saturated_scores_decide_average_precision_and_f1_without_showing_in_auroc():
    generator = torch.Generator().manual_seed(0)
    data = fabricate("tied")
    places = torch.randperm(data["masks"].numel(), generator=generator)[:26]
    data["masks"] = torch.zeros(IMAGES, *SIZE, dtype=torch.bool)
    data["masks"].view(-1)[places[:20]] = True
    data["labels"] = data["masks"].flatten(1).any(1).long()
    data["maps"] = torch.rand(IMAGES, *SIZE, generator=generator) * 0.9
    data["maps"].view(-1)[places] = 1 - 1e-5 * torch.rand(26, generator=generator)
    data["maps"].view(-1)[places[20:]] = 1  # good pixels above all defective ones
    row, exact = evaluate(data).pooled, oracle(data)
    first = metric_of(data)
    once = Counts(*(state.sum(0) for state in (first.positives, first.negatives, first.regions)))
    assert error_bounds(once, FIRST.tied).pixel_auroc < 1e-4
    assert ranking(*once.descending()[:2])[1] - exact.pixel_ap > 0.1
    assert same(row[4:], exact[4:], 1e-4)


def test_neighbouring_floats_in_many_bins_are_distinguished():
    data = fabricate()
    bins = 1 + torch.randint(0, 16, (IMAGES, *SIZE), generator=torch.Generator().manual_seed(0)) * 2**-9
    data["maps"] = torch.where(data["masks"], torch.nextafter(bins, torch.tensor(9.0)), bins)
    evaluation = evaluate(data)
    assert evaluation.error_bounds["pooled"] == (0, 0, 0, 0)
    assert same(evaluation.pooled[4:], oracle(data)[4:], 1e-9)


@pytest.mark.parametrize("kind", ["smooth", "narrow band", "saturated", "both signs"])
def test_large_maps_are_counted_and_not_kept_within_their_bounds(kind, monkeypatch):
    data = fabricate(kind)
    kept = evaluate(data)
    monkeypatch.setattr(anomaly_metrics, "KEPT_CELLS", data["maps"][0].numel() - 1)
    metric = metric_of(data)
    counted = metric.compute()
    assert not metric.images
    assert counted.refined == ()
    assert counted.mean.image_auroc == kept.mean.image_auroc
    for name, row in {**counted.categories, "pooled": counted.pooled}.items():
        exact = kept.pooled if name == "pooled" else kept.categories[name]
        for field, bound in counted.error_bounds[name]._asdict().items():
            assert abs(getattr(row, field) - getattr(exact, field)) <= bound + 1e-4, (name, field)


def test_auroc_below_half_is_not_flipped():
    data = fabricate()
    data["maps"], data["scores"] = -data["maps"], -data["scores"]
    assert evaluate(data).pooled.image_auroc < 0.5
    assert evaluate(data).pooled.pixel_auroc < 0.5


def test_minus_zero_is_zero():
    data = fabricate()
    data["maps"], data["scores"] = torch.zeros(IMAGES, *GRID), torch.zeros(IMAGES)
    data["maps"][data["labels"] > 0] *= -1
    data["scores"][data["labels"] > 0] *= -1
    pooled = evaluate(data).pooled
    assert (pooled.image_auroc, pooled.pixel_auroc) == (0.5, 0.5)


def test_category_of_one_class_is_undefined_and_left_out_of_the_mean():
    data = fabricate()
    data = pick(data, (data["categories"] < 2) | (data["labels"] == 0))
    data["indices"] = torch.arange(len(data["labels"]))
    evaluation = evaluate(data)
    assert evaluation.categories["capsule"].images == 2
    assert all(map(math.isnan, evaluation.categories["capsule"][1:]))
    assert all(map(math.isnan, evaluation.error_bounds["capsule"]))
    assert evaluation.mean_over == dict.fromkeys(Row._fields[1:], 2)
    assert same(evaluation.mean[1:], np.mean([*evaluation.categories.values()][:2], axis=0)[1:], 1e-12)
    assert same(evaluation.pooled, oracle(data), 1e-3)


def test_a_foreign_category_is_ranked_against_the_good_images_of_all():
    """Whole classes as anomalies: a normal one has no row of its own, any other is itself against all normal ones."""
    data = fabricate()
    data["labels"] = (data["categories"] == 2).long()
    metric = AnomalyMetrics(categories=CATEGORIES, num_images=IMAGES, foreign={"capsule"})
    metric.update(**{**data, "has_mask": torch.zeros(IMAGES, dtype=torch.bool)})
    result = metric.compute()
    expected = scikit_learn(data["labels"].numpy(), data["scores"].numpy())
    row = result.categories["capsule"]
    assert row.images == 6
    for own in (row[1:4], result.pooled[1:4], result.mean[1:4]):
        assert own == pytest.approx(tuple(expected)[:3], abs=1e-6)
    assert all(math.isnan(value) for name in ("bottle", "cable") for value in result.categories[name][1:])
    assert all(math.isnan(value) for value in (*row[4:], *result.pooled[4:]))
    assert result.mean_over["image_auroc"] == 1


def test_images_without_mask_count_as_images_only():
    data = fabricate()
    data["has_mask"] = data["categories"] != 1
    evaluation, masked = evaluate(data), pick(data, data["has_mask"])
    cable = evaluation.categories["cable"]
    assert cable.image_auroc == pytest.approx(oracle(pick(data, data["categories"] == 1)).image_auroc)
    assert all(map(math.isnan, cable[4:]))
    assert (evaluation.mean_over["image_ap"], evaluation.mean_over["aupro"]) == (3, 2)
    assert same(evaluation.pooled[:4], oracle(data)[:4], 1e-9)
    assert same(evaluation.pooled[4:], oracle(masked)[4:], 1e-3)


def test_missing_and_repeated_images_are_named():
    data = fabricate()
    metric = AnomalyMetrics(categories=CATEGORIES, num_images=IMAGES)
    metric.update(**pick(data, slice(0, 15)))
    with pytest.raises(ValueError, match=r"of 18 images 3 missing \(first index 15\); expected each exactly once"):
        metric.compute()
    metric.update(**pick(data, slice(14, 18)))
    with pytest.raises(ValueError, match=r"of 18 images 1 added more than once \(first index 14\)"):
        metric.compute()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", ["maps", "scores"])
def test_nan_and_infinity_are_refused_and_nothing_is_added(column, value):
    data = fabricate()
    spoilt = copy.deepcopy(data)
    spoilt[column][7] = value
    metric = AnomalyMetrics(categories=CATEGORIES, num_images=IMAGES)
    with pytest.raises(ValueError, match="image 7: NaN or infinite"):
        metric.update(**spoilt)
    metric.update(**data)
    assert metric.compute().pooled == evaluate(data).pooled


@pytest.mark.parametrize(
    ("column", "wrong", "message"),
    [
        ("labels", torch.full((IMAGES,), 2), "image 0: label 2 is out of range; expected 0..1"),
        ("categories", torch.arange(IMAGES), "image 3: category 3 is out of range; expected 0..2"),
        ("indices", torch.arange(IMAGES) - 1, "image -1: index -1 is out of range; expected 0..17"),
        ("masks", torch.zeros(IMAGES - 1, *SIZE), "one length B for all"),
        ("maps", torch.zeros(IMAGES, 1, *GRID), "one length B for all"),
    ],
)
def test_unfit_batches_are_refused(column, wrong, message):
    with pytest.raises(ValueError, match=message):
        AnomalyMetrics(categories=CATEGORIES, num_images=IMAGES).update(**{**fabricate(), column: wrong})


@pytest.mark.parametrize(("categories", "images"), [([], 1), (["a"], 0), (["a", "a"], 1), (["pooled"], 1)])
def test_impossible_arguments_are_refused(categories, images):
    with pytest.raises(ValueError, match=r"expected at least one|rename"):
        AnomalyMetrics(categories=categories, num_images=images)


def test_metric_is_reusable_and_no_part_of_a_checkpoint():
    data = fabricate()
    metric = metric_of(data)
    first = metric.compute()
    assert metric.compute() is first
    assert torch.nn.ModuleDict({"metric": metric}).state_dict() == {}
    assert len(metric.images) == IMAGES
    assert metric.images[3].map.equal(data["maps"][3])
    with torch.inference_mode():  # where Lightning resets
        metric.reset()
    assert metric.images == []
    assert not metric.positives.any()
    metric.update(**pick(data, slice(0, 0)))  # a rank without images
    for index in reversed(range(IMAGES)):
        metric.update(**pick(data, [index]))
    assert same(metric.compute().pooled, first.pooled, 1e-12)
    with pytest.raises(NotImplementedError, match="update"):
        metric(**data)


def test_neither_casting_the_module_nor_changing_the_tensors_changes_the_numbers():
    data = fabricate("narrow band")
    expected = evaluate(data)
    metric = AnomalyMetrics(categories=CATEGORIES, num_images=IMAGES)
    metric.to(torch.bfloat16).half()
    metric.update(**data)
    data["maps"].zero_()
    assert metric.to(torch.bfloat16).compute() == expected


SHARED = {
    "smooth": fabricate("wide", images=7),
    "narrow band": fabricate("narrow band", images=21),
    "one rank empty": fabricate("narrow band", images=9),
    "clusters": fabricate("clusters", images=9),
    "no masks": {**fabricate(images=9), "has_mask": torch.zeros(9, dtype=torch.bool)},
}
SHARED["smooth"]["categories"][5] = 0  # leaves the third category to the rank that has image 2


def share(name, rank):
    """The images of one of two ranks: every second one, or all and none."""
    indices = SHARED[name]["indices"]
    return indices[: (1 - rank) * len(indices)] if name == "one rank empty" else indices[rank::2]


def work(rank, folder):
    """One of two ranks: evaluates its share of each case, and saves what comes out and what went over the wire."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    reduce, sent = dist.all_reduce, []
    dist.all_reduce = lambda tensor, **options: (sent.append(tensor.numel()), reduce(tensor, **options))
    for name, data in SHARED.items():
        sent.clear()
        own = share(name, rank)
        metric = AnomalyMetrics(categories=CATEGORIES, num_images=len(data["maps"]))
        metric.update(**pick(data, own[:1]))
        with pytest.raises(ValueError, match="missing"):  # leaves each rank with its own states
            metric.compute()
        metric.update(**pick(data, own[1:]))
        sent.clear()
        evaluation = metric.compute()
        kept = int(metric.visits.sum()), len(metric.images)
        results[name] = {"evaluation": evaluation, "sent": sum(sent), "kept": kept}
        results[name]["intervals"] = with_intervals(evaluation, metric, resamples=50).intervals
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(work, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


@pytest.mark.parametrize("name", SHARED)
def test_two_ranks_get_the_numbers_of_one(ranks, name):
    expected = evaluate(SHARED[name])
    for rank, results in enumerate(ranks):
        evaluation = results[name]["evaluation"]
        for category, row in expected.categories.items():
            assert same(evaluation.categories[category], row, 1e-9)
        assert same(evaluation.mean, expected.mean, 1e-9)
        assert same(evaluation.pooled, expected.pooled, 1e-9)
        assert evaluation.refined == expected.refined
        assert evaluation.mean_over == expected.mean_over
        for category, bounds in expected.error_bounds.items():
            assert evaluation.error_bounds[category] == pytest.approx(bounds, abs=1e-9, nan_ok=True)
        assert results[name]["kept"] == (len(share(name, rank)), len(share(name, rank)))
    assert (expected.refined == ()) == (name == "no masks")


@pytest.mark.parametrize("name", SHARED)
def test_two_ranks_get_the_intervals_of_one(ranks, name):
    metric = metric_of(SHARED[name])
    expected = with_intervals(metric.compute(), metric, resamples=50).intervals
    assert ("pixel_auroc" in expected["mean"]) == ("aupro" in expected[POOLED]) == (name != "no masks")
    for results in ranks:
        found = results[name]["intervals"]
        assert {row: [*part] for row, part in found.items()} == {row: [*part] for row, part in expected.items()}
        for row, part in expected.items():
            assert np.array([*found[row].values()]) == pytest.approx(np.array([*part.values()]), abs=1e-9)


@pytest.mark.parametrize("name", ["narrow band", "no masks"])
def test_ranks_exchange_a_fraction_of_the_states(ranks, name):
    assert ranks[0][name]["sent"] == ranks[1][name]["sent"] < 3 * len(CATEGORIES) * BINS / 5


def test_ignored_pixels_count_neither_as_good_nor_as_defective():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(6, 20, 20, generator=generator)
    masks = torch.rand(6, 20, 20, generator=generator) > 0.9
    labels = torch.tensor([0, 1, 1, 0, 1, 1])
    masks[labels == 0] = False
    ignored = torch.zeros(20, 20, dtype=torch.bool)
    ignored[:, 8:] = True
    rows = []
    for part in (slice(None), slice(8)):  # with the ignored part, and without it
        metrics = AnomalyMetrics(categories=["a"], num_images=6, ignored=ignored if part == slice(None) else None)
        metrics.update(
            maps=maps[:, :, part], scores=labels.double(), masks=masks[:, :, part], labels=labels,
            has_mask=torch.ones(6, dtype=torch.bool), categories=torch.zeros(6).long(), indices=torch.arange(6),
        )  # fmt: skip
        rows.append(metrics.compute().pooled)
    assert rows[0] == rows[1]
