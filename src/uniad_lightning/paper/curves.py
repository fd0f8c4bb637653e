"""Figs. 2 and 4: the loss and both AUROCs over the epochs, read from the files of the CSV logger."""

import csv
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.errors import InputError
from uniad_lightning.paper.comparison import Comparison, Curve, over_seeds
from uniad_lightning.paper.filling import Layout, Rows, whole_seeds
from uniad_lightning.paper.gathering import Run

LOGS = "logs/version_*/metrics.csv"
_LOGGED = {"loss": "train/loss_epoch", "localization": "mean/pixel_auroc", "detection": "mean/image_auroc"}


def read_curve(folder: Path, *, epochs: float) -> Curve | None:
    """The curve of a run folder of `epochs` epochs, parts of a resumed training joined; None where nothing was logged.

    Raises InputError for a file that is not of the CSV logger.
    """
    curve = Curve({}, {}, {})
    for path in sorted(folder.glob(LOGS), key=lambda path: int(path.parent.name.rpartition("_")[2])):
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                _add(curve, row, path, epochs)
    return curve if any(curve) else None


def _add(curve: Curve, row: dict[str, str], path: Path, epochs: float) -> None:
    """Add a logged row; the evaluation after the training counts as its last epoch, undefined values are left out."""
    try:
        for head, name in _LOGGED.items():
            value = float(row[name] or "nan") if name in row else math.nan
            if not math.isnan(value):
                epoch = int(row["epoch"]) + 1
                getattr(curve, head)[min(epoch, epochs)] = value if head == "loss" else 100 * value
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{path}: a row has no epoch and numbers; expected what logger=csv writes") from None


def per_curve(layout: Layout, rows: Rows) -> Comparison:
    """One line for each row: the last and the best AUROCs over seeds, and the curves.

    In the separate case the curve of a seed is the mean over its categories.
    """
    notes: list[str] = []
    lines, by_line = [], {}
    for row, line in layout.lines.items():
        seeds = [_curves(part, notes) for part in whole_seeds(rows, row, notes)]
        curves = [_mean(part) for part in seeds if part]
        if curves:
            by_line[line.labels[0]] = tuple(curves)
        cells = []
        for cell, (name, moment) in zip(line.cells, layout.measures.values(), strict=True):
            values = [list(getattr(curve, name).values()) for curve in curves]
            chosen = [(max(curve) if moment == "best" else curve[-1]) / 100 for curve in values if curve]
            cells.append(cell._replace(ours=over_seeds(chosen)))
        lines.append(line._replace(cells=tuple(cells)))
    if not by_line:
        raise InputError("; ".join(notes))
    return layout.table(lines, notes)._replace(curves=by_line)


def _mean(curves: Sequence[Curve]) -> Curve:
    """The mean of `curves` at the epochs that all have."""
    means = []
    for numbers in zip(*curves, strict=True):
        epochs = [epoch for epoch in numbers[0] if all(epoch in other for other in numbers)]
        means.append({epoch: statistics.fmean(curve[epoch] for curve in numbers) for epoch in epochs})
    return Curve(*means)


def _curves(runs: Sequence[Run], notes: list[str]) -> list[Curve]:
    """The curves of `runs` of one seed, none if one is missing; adds to `notes` runs without curves or points."""
    curves = []
    for run in runs:
        epochs = run.settings["trainer.max_epochs"]
        curve = read_curve(run.folder, epochs=epochs if (epochs or 0) > 0 else math.inf)
        if curve is None:
            notes.append(f"left out: {run.folder}: has no {LOGS}; train with logger=csv")
            continue
        if len(curve.detection) < 2:
            notes.append(f"{run.folder} was evaluated at its end alone; validate_every=10 makes a curve")
        curves.append(curve)
    return curves if len(curves) == len(runs) else []
