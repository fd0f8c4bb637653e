"""Confidence intervals of an evaluation: 1000 resamples of its images against a loop of scikit-learn's AUROC over them.

Ours are AUROC, average precision and F1-max of every resample, the loop gives the AUROC alone. The second row is what
the intervals of all metrics, pixels included, add to an evaluation, whose own time is the opponent.
"""

import numpy as np
import torch
from pixel_metrics import BATCH, CATEGORIES, IMAGES, Scenes, scenes
from sklearn.metrics import roc_auc_score
from timing import Row, compare, in_turn, prove_equal

from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics
from uniad_lightning.metrics.bootstrap import RESAMPLES, multiplicities, resampled_rankings
from uniad_lightning.metrics.intervals import with_intervals


def loop(scores: np.ndarray, labels: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """The AUROC of each resample, one after the other."""
    return np.array([roc_auc_score(labels, scores, sample_weight=times) for times in drawn])


def filled(parts: list[Scenes]) -> AnomalyMetrics:
    """The metrics of all `parts`, one a category, every second image defective, to be computed."""
    count = len(parts[0]["maps"])
    metrics = AnomalyMetrics(categories=[str(c) for c in range(len(parts))], num_images=count * len(parts))
    for category, part in enumerate(parts):
        for start in range(0, count, BATCH):
            batch = {name: value[start : start + BATCH] for name, value in part.items()}
            size = len(batch["maps"])
            metrics.update(
                **batch,
                scores=batch["maps"].amax((1, 2)),
                has_mask=torch.ones(size, dtype=torch.bool),
                labels=batch["masks"].flatten(1).any(1).long(),
                categories=torch.full((size,), category),
                indices=torch.arange(size) + category * count + start,
            )
    return metrics


def rows(quick: bool) -> list[Row]:
    categories, images, resamples = (3, BATCH, 100) if quick else (CATEGORIES, IMAGES, RESAMPLES)
    rng, total = np.random.default_rng(0), categories * images
    labels = np.tile([0, 1], total)[:total]
    scores = rng.normal(labels)

    def draw() -> np.ndarray:
        return multiplicities(2 * (np.arange(total) % categories) + labels, seed=0, resamples=resamples)

    def ours() -> np.ndarray:
        return resampled_rankings(scores, labels, draw())

    drawn = draw()
    prove_equal(torch.from_numpy(ours()[0]), torch.from_numpy(loop(scores, labels, drawn)), "scikit-learn")
    parts = [scenes(images, seed) for seed in range(categories)]
    metrics = filled(parts)
    evaluation = metrics.compute()
    seconds = in_turn(
        {
            "ours": ours,
            "loop": lambda: loop(scores, labels, drawn),
            "intervals": lambda: with_intervals(evaluation, metrics, resamples=resamples),
            "evaluation": lambda: filled(parts).compute(),
        },
        repeats=1 if quick else 5,
    )
    name = f"{resamples} resamples of {total} images"
    return [
        compare(f"image AUROC, AP, F1-max of {name}: loop of roc_auc_score", seconds["ours"], seconds["loop"], 10),
        compare(f"intervals of all metrics, {name}: the evaluation", seconds["intervals"], seconds["evaluation"]),
    ]
