"""The run folder: its files, written whole or not at all, and the refusal to write over a finished run."""

import csv
import io
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

from uniad_lightning.errors import InputError
from uniad_lightning.metrics import Evaluation, Row
from uniad_lightning.uncertainty import Bounds

METRICS = "metrics.json"
CALIBRATION = "calibration.json"
OUTCOMES = "outcomes.csv"
RESULTS = "results.csv"
CONFIG = "config.yaml"
LAST = Path("checkpoints") / "last.ckpt"
COLUMNS = tuple(name for name in Row._fields if name != "images")


def refuse_occupied(folder: Path, *, overwrite: bool, resume_from: str | None) -> None:
    """Raises InputError when `folder` holds a run that this one would write over without having been told to.

    Resuming (`resume_from` is its own checkpoint) may continue an unfinished run in place.
    """
    if overwrite:
        return
    if (folder / METRICS).is_file() or (folder / CALIBRATION).is_file():
        raise InputError(
            f"output_dir={folder} already holds a finished run; choose another output_dir, or overwrite=true"
        )
    own = folder / LAST
    if own.is_file() and not (resume_from and Path(resume_from).resolve().parent == own.parent.resolve()):
        raise InputError(
            f"output_dir={folder} already holds an unfinished run; resume it with ckpt_path={own}, choose another "
            "output_dir, or overwrite=true"
        )


def clear(folder: Path) -> None:
    """Remove what an earlier run said and drew, so that it cannot be taken for the next one's."""
    for name in (METRICS, RESULTS, CALIBRATION, OUTCOMES):
        (folder / name).unlink(missing_ok=True)
    for name in ("heatmaps", "maps"):
        shutil.rmtree(folder / name, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file under a temporary name and rename it, so that no reader ever meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def write_evaluation(folder: Path, evaluation: Evaluation, *, facts: dict[str, Any]) -> None:
    """`results.csv`, then `metrics.json`, whose presence says that the run is finished.

    Numbers are fractions of 1; what is undefined is `nan` in the CSV and `null` in the JSON, which also holds how far
    each pixel metric of a row may be off, `error_bounds` (`pixel_auroc_error_bound` is one of them under its former
    name). `facts` are further entries of the JSON.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["category", "images", *COLUMNS])
    for name, row in rows(evaluation):
        writer.writerow([name, row.images, *(f"{getattr(row, column):.6f}" for column in COLUMNS)])
    write_text(folder / RESULTS, table.getvalue())
    metrics = {
        "mean": _plain(evaluation.mean),
        "pooled": _plain(evaluation.pooled),
        "categories": {name: _plain(row) for name, row in evaluation.categories.items()},
        "mean_over": evaluation.mean_over,
        "refined": list(evaluation.refined),
        "error_bounds": {name: _plain(bounds) for name, bounds in evaluation.error_bounds.items()},
        "pixel_auroc_error_bound": {
            name: _number(bounds.pixel_auroc) for name, bounds in evaluation.error_bounds.items()
        },
        **facts,
    }
    write_text(folder / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def rows(evaluation: Evaluation) -> list[tuple[str, Row]]:
    """Categories, then `mean`, then `pooled`."""
    return [*evaluation.categories.items(), ("mean", evaluation.mean), ("pooled", evaluation.pooled)]


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """The content of a finished run's `metrics.json`; None when the run is not finished."""
    path = folder / METRICS
    return json.loads(path.read_text()) if path.is_file() else None


def _plain(row: Row | Bounds) -> dict[str, float | int | None]:
    return {name: _number(value) for name, value in row._asdict().items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
