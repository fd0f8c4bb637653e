"""The numbers of each category, with intervals, and the table of scores that they come from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.boundary import score_at_best_f1
from uniad_lightning.metrics.bootstrap import (
    NO_INTERVAL,
    Interval,
    corrected,
    interval,
    mean_of,
    multiplicities,
    resampled_rankings,
)
from uniad_lightning.metrics.histogram import by_score, ranking
from uniad_lightning.metrics.intervals import SEED
from uniad_lightning.report.content import ReportedImage, ReportedRun
from uniad_lightning.results.decisions import LABELS

_AVERAGED = ("auroc", "ap", "f1max", "pixel_auroc", "aupro")
HEADS = (
    "run", "path", "category", "label", "defect", "score", "boundary", "decision", "mistake", "category_found",
    "familiar", "error",
)  # fmt: skip


class CategoryNumbers(NamedTuple):
    """What the scores of one category, or of all, say; shares in 0..1, NaN where undefined.

    Attributes:
        category: its name, `mean` or `pooled`.
        good: good images.
        defective: defective images.
        auroc: image AUROC.
        interval: its 95 % interval.
        ap: image average precision.
        f1max: the largest F1 of any boundary.
        pixel_auroc: that of the run's `metrics.json`.
        aupro: that of the run's `metrics.json`.
    """

    category: str
    good: int
    defective: int
    auroc: float
    interval: Interval
    ap: float
    f1max: float
    pixel_auroc: float
    aupro: float


def categories_of(run: ReportedRun) -> list[str]:
    """The names of the categories of its images, sorted."""
    return sorted({image.category for image in run.images})


def numbers_of(run: ReportedRun) -> list[CategoryNumbers]:
    """The categories of a labelled run, then `mean` and `pooled` where there are several.

    Intervals are those of `metrics.intervals`, of the same resamples of the images by category and label.
    """
    images = sorted((image for image in run.images if image.score is not None), key=lambda image: image.category)
    scores = np.array([image.score for image in images], dtype=float)
    labels = np.array([image.label for image in images], dtype=int)
    names = categories_of(run)
    ids = np.array([names.index(image.category) for image in images], dtype=int)
    drawn = multiplicities(2 * ids + labels, seed=SEED)
    rows, resamples = [], []
    for place, name in enumerate(names):
        own = ids == place
        row = _row(name, scores[own], labels[own], _metrics(run, "categories", name))
        resamples.append(resampled_rankings(scores[own], labels[own], drawn[:, own])[0])
        rows.append(row._replace(interval=interval(corrected(resamples[-1], row.auroc))))
    if len(rows) == 1:
        return rows
    pooled = _row("pooled", scores, labels, _metrics(run, "pooled"))
    together = resampled_rankings(scores, labels, drawn)[0]
    return [*rows, _mean(rows, resamples), pooled._replace(interval=interval(corrected(together, pooled.auroc)))]


def _mean(rows: Sequence[CategoryNumbers], resamples: Sequence[np.ndarray]) -> CategoryNumbers:
    columns = (np.array([getattr(row, name) for row in rows], dtype=float) for name in _AVERAGED)
    auroc, *others = (float(np.nanmean(column)) if not np.isnan(column).all() else np.nan for column in columns)
    ends = interval(corrected(mean_of(resamples), auroc))
    return CategoryNumbers(
        "mean", sum(row.good for row in rows), sum(row.defective for row in rows), auroc, ends, *others
    )


def _metrics(run: ReportedRun, *keys: str) -> Mapping[str, Any]:
    """A row of the run's `metrics.json`, empty where it has none."""
    found: Any = run.metrics
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _row(name: str, scores: np.ndarray, labels: np.ndarray, metrics: Mapping[str, Any]) -> CategoryNumbers:
    """A row without an interval, of the scores and labels (n,)."""
    pixels = (metrics.get(column) for column in ("pixel_auroc", "aupro"))
    pixel_auroc, aupro = (float(value) if isinstance(value, int | float) else float("nan") for value in pixels)
    auroc, ap, f1max = ranking(*by_score(torch.from_numpy(scores), torch.from_numpy(labels)))
    defective = int(labels.sum())
    return CategoryNumbers(name, len(labels) - defective, defective, auroc, NO_INTERVAL, ap, f1max, pixel_auroc, aupro)


def scores_by_label(images: Sequence[ReportedImage]) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the good images and of the defective ones, float64."""
    good, defective = (
        np.array([image.score for image in images if image.label == label and image.score is not None], dtype=float)
        for label in (0, 1)
    )
    return good, defective


def first_boundary(run: ReportedRun) -> float:
    """Where a slider for all categories begins: at the run's own boundary, else at the best F1, else at the maximum."""
    if run.calibration is not None:
        return run.calibration.overall.score
    good, defective = scores_by_label(run.images)
    if len(good) and len(defective):
        return score_at_best_f1(good, defective)
    return max((image.score for image in run.images if image.score is not None), default=0.0)


def score_table(names: Sequence[str], runs: Sequence[ReportedRun]) -> str:
    """`report.csv`: all images of all runs with their scores, and what the runs' boundaries decide."""
    rows: list[Sequence[object]] = [HEADS]
    for name, run in zip(names, runs, strict=True):
        rows += [_cells(name, run, image) for image in run.images]
    return csv_text(rows)


def _cells(name: str, run: ReportedRun, image: ReportedImage) -> Sequence[object]:
    boundary, decision = run.deciding(image.category), run.decision(image)
    label = "" if image.label is None else LABELS[image.label]
    wrong = decision != "" and label != "" and (decision == "defective") != (label == "defective")
    mistake = ("false alarm" if label == "good" else "missed") if wrong else ""
    familiar = "" if image.familiar is None else str(image.familiar).lower()
    return (
        name, image.path, image.category, label, image.defect, "" if image.score is None else repr(image.score),
        "" if boundary is None else repr(boundary.score), decision, mistake, image.found, familiar, image.error,
    )  # fmt: skip
