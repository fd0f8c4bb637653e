"""The numbers of each category, with intervals, and the table of scores that they come from."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.boundary import score_at_best_f1
from uniad_lightning.metrics.bootstrap import Interval, interval, mean_of, resampled_aurocs
from uniad_lightning.metrics.histogram import by_score, ranking
from uniad_lightning.report.content import ReportedImage, ReportedRun
from uniad_lightning.results.decisions import LABELS

SEED = 0  # of the resamples: the same page twice has the same intervals
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
    """The categories of a labelled run, then `mean` and `pooled` where there are several."""
    rows, resamples = [], []
    for place, name in enumerate(categories_of(run)):
        own = [image for image in run.images if image.category == name]
        resampled = resampled_aurocs(*scores_by_label(own), seed=SEED + place)
        resamples.append(resampled)
        rows.append(_row(name, own, interval(resampled), _metrics(run, "categories", name)))
    if len(rows) == 1:
        return rows
    means = (float(np.nanmean(values)) if not np.isnan(values).all() else np.nan for values in _columns(rows))
    good, defective = sum(row.good for row in rows), sum(row.defective for row in rows)
    auroc, ap, f1max, pixel_auroc, aupro = means
    mean = interval(mean_of(resamples))
    rows.append(CategoryNumbers("mean", good, defective, auroc, mean, ap, f1max, pixel_auroc, aupro))
    pooled = interval(resampled_aurocs(*scores_by_label(run.images), seed=SEED + len(resamples)))
    return [*rows, _row("pooled", run.images, pooled, _metrics(run, "pooled"))]


def _metrics(run: ReportedRun, *keys: str) -> Mapping[str, Any]:
    """A row of the run's `metrics.json`, empty where it has none."""
    found: Any = run.metrics
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _columns(rows: Sequence[CategoryNumbers]) -> list[np.ndarray]:
    names = ("auroc", "ap", "f1max", "pixel_auroc", "aupro")
    return [np.array([getattr(row, name) for row in rows], dtype=float) for name in names]


def _row(name: str, images: Sequence[ReportedImage], auroc: Interval, metrics: Mapping[str, Any]) -> CategoryNumbers:
    good, defective = scores_by_label(images)
    scores = torch.from_numpy(np.concatenate([good, defective]))
    labels = torch.tensor([0] * len(good) + [1] * len(defective))
    pixels = (metrics.get(column) for column in ("pixel_auroc", "aupro"))
    pixel_auroc, aupro = (float(value) if isinstance(value, int | float) else float("nan") for value in pixels)
    value, ap, f1max = ranking(*by_score(scores, labels))
    return CategoryNumbers(name, len(good), len(defective), value, auroc, ap, f1max, pixel_auroc, aupro)


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
