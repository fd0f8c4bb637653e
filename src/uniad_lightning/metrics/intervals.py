"""The confidence intervals of an evaluation: every image, with all of its pixels, is in a resample or is not.

Pixels of one image are not independent, so images are drawn and not pixels, by category and label.
All numbers of an evaluation are of the same resamples, which makes the intervals of the mean and of the pool right.
Pixels are counted again for it, image by image, in few bins; the error that these make on all images is taken off.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.distributed as dist

from uniad_lightning.metrics.anomaly_metrics import POOLED, AnomalyMetrics, Evaluation, Intervals, Row
from uniad_lightning.metrics.bootstrap import (
    RESAMPLES,
    ROUNDING,
    corrected,
    interval,
    mean_of,
    multiplicities,
    overlaps,
    rankings,
    resampled_rankings,
)
from uniad_lightning.metrics.coarse_bins import COARSE
from uniad_lightning.metrics.histogram import Counts, count_images

SEED = 0  # the same scores have the same intervals
_AT_ONCE = 64  # images


def with_intervals(evaluation: Evaluation, metrics: AnomalyMetrics, *, resamples: int = RESAMPLES) -> Evaluation:
    """`evaluation`, the last of `metrics`, with its 95 % intervals; every rank has to call it.

    A number has none where the resamples do not vary, as those of scores that do not overlap: they say nothing. Pixel
    metrics have none where maps were too large to be kept (`KEPT_CELLS`), and where a resample may lack a defect.
    """
    with metrics.sync_context():  # all ranks take part
        drawn = _drawn(metrics, resamples)
        parts = {name: _row(metrics, name, drawn) for name in metrics.spans}
    rows = {**evaluation.categories, POOLED: evaluation.pooled}
    for name, part in parts.items():
        for metric, resampled in part.items():
            resampled += getattr(rows[name], metric) - resampled[0]  # the error of few bins; 0 for image metrics
    own = [part for name, part in parts.items() if name != POOLED]
    mean = {
        metric: mean_of([part[metric] for part in own if metric in part])
        for metric, over in evaluation.mean_over.items()
        if 0 < over == sum(metric in part for part in own)
    }
    found = {name: _intervals(part) for name, part in {**parts, "mean": mean}.items()}
    return evaluation._replace(intervals=found)


def _drawn(metrics: AnomalyMetrics, resamples: int) -> np.ndarray:
    """How often each image of the split is in each resample, (1 + R, N); the first is the split itself."""
    labels, ids = metrics.image_labels.cpu().numpy(), metrics.image_categories.cpu().numpy()
    drawn = multiplicities(2 * ids + labels, seed=SEED, resamples=resamples)
    return np.concatenate([np.ones_like(drawn[:1]), drawn])


def _row(metrics: AnomalyMetrics, name: str, drawn: np.ndarray) -> dict[str, np.ndarray]:
    """The resamples (1 + R,) of those metrics of one row that are defined in all."""
    ranked = metrics.ranked(metrics.spans[name]).cpu().numpy()
    scores, labels = metrics.image_scores.cpu().numpy()[ranked], metrics.image_labels.cpu().numpy()[ranked]
    found = dict(zip(Row._fields[1:4], resampled_rankings(scores, labels, drawn[:, ranked]), strict=True))
    if not int(metrics.not_kept):
        positives, negatives, regions = _resampled_counts(metrics, name, drawn)
        pixels = [*rankings(positives, negatives), overlaps(regions, negatives)]
        found |= dict(zip(Row._fields[4:], pixels, strict=True))
    return {metric: values for metric, values in found.items() if not np.isnan(values).any()}


def _resampled_counts(metrics: AnomalyMetrics, name: str, drawn: np.ndarray) -> list[np.ndarray]:
    """Positives, negatives and regions (1 + R, COARSE) of the resamples, highest score first."""
    span, coarse, device = metrics.spans[name], metrics.coarse[name], metrics.positives.device
    own = [image for image in metrics.images if span.start <= image.category < span.stop and image.mask]
    sums = [torch.zeros(len(drawn), COARSE, dtype=torch.float64, device=device) for _ in Counts._fields]
    for start in range(0, len(own), _AT_ONCE):
        part = own[start : start + _AT_ONCE]
        whole = torch.zeros(len(part) * COARSE, dtype=torch.int64, device=device)
        counts = Counts(whole, whole.clone(), whole.double())
        numbered = [image._replace(category=number) for number, image in enumerate(part)]
        count_images(numbered, counts, lambda keys, number: coarse.bins(keys).add_(number * COARSE), metrics.valid)
        times = torch.from_numpy(drawn[:, [image.place for image in part]].astype(np.float64)).to(device)
        for total, count in zip(sums, counts, strict=True):
            total += times @ count.view(len(part), COARSE).double()
    for total in sums:
        if metrics.is_synced:
            dist.all_reduce(total, group=metrics.process_group)
    return [total.flip(1).cpu().numpy() for total in sums]


def _intervals(parts: Mapping[str, np.ndarray]) -> Intervals:
    """The intervals of metrics from their values (1 + R,): on all images, then those of the resamples."""
    found = {metric: interval(corrected(values[1:].clip(0, 1), values[0])) for metric, values in parts.items()}
    return {metric: ends for metric, ends in found.items() if ends.high - ends.low > ROUNDING}
