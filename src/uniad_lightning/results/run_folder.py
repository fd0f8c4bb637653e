"""The run folder: its files, each written whole or not at all, and the refusal to overwrite other files."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from uniad_lightning.errors import InputError
from uniad_lightning.files.atomic import write_whole
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.files.json_file import read_object
from uniad_lightning.files.within import is_within, stays_within
from uniad_lightning.metrics.anomaly_metrics import Evaluation, Row
from uniad_lightning.metrics.bootstrap import NO_INTERVAL, Interval
from uniad_lightning.metrics.uncertainty import Bounds
from uniad_lightning.results.written_files import foreign, logs, note, remove_written, written

METRICS = "metrics.json"
CALIBRATION = "calibration.json"
OUTCOMES = "outcomes.csv"
SCORES = "scores.png"
LOSS = "loss.png"
DEFECTS = "defects.png"
TEST_SCORES = "test_scores.csv"
MISTAKES = "mistakes.png"
JOURNAL = "predictions.jsonl"
HEATMAPS, MAPS = "heatmaps", "maps"
REPORT, REPORT_TABLE, REPORT_FILES = "report.html", "report.csv", "report_files"
RESULTS = "results.csv"
SKIPPED = "skipped.csv"
CONFIG = "config.yaml"
LAST = Path("checkpoints") / "last.ckpt"
_AGAIN = "evaluate the run again"
_ROWS = ("mean", "pooled", "categories")  # entries of metrics.json that hold numbers by name
# Results, from which no training resumes.
_OUTCOME = (
    METRICS, RESULTS, TEST_SCORES, MISTAKES, CALIBRATION, OUTCOMES, SCORES, LOSS, DEFECTS, HEATMAPS, MAPS,
    REPORT, REPORT_TABLE, REPORT_FILES, SKIPPED,
)  # fmt: skip
COLUMNS = tuple(name for name in Row._fields if name != "images")
ENDS = tuple(f"{name}_{end}" for name in COLUMNS for end in Interval._fields)


def claim(folder: Path, *, overwrite: bool, resume_from: str | None = None, reads: str | None = None) -> None:
    """Prepare `folder` for a run: `refuse_occupied`, then `clear`."""
    refuse_occupied(folder, overwrite=overwrite, resume_from=resume_from)
    clear(folder, resume_from=resume_from, reads=reads)


def refuse_occupied(folder: Path, *, overwrite: bool, resume_from: str | None = None) -> None:
    """Raises InputError for a folder that a run must not write to.

    That is a folder with predictions, with a file in the way that this package has not written, or, without
    `overwrite`, with a finished run or an unfinished one that is not to be resumed.
    """
    if not overwrite:
        _refuse_other_run(folder, resuming=_is_own(folder, resume_from))
    if (folder / JOURNAL).exists():
        raise InputError(f"output_dir={folder} holds predictions ({JOURNAL}); choose another output_dir")
    refuse_in_the_way(folder, (CONFIG, *_OUTCOME, str(LAST)))


def clear(folder: Path, *, resume_from: str | None = None, reads: str | None = None) -> None:
    """Remove what an earlier run has written in `folder`, and never anything else.

    Only its results are removed where the run resumes from its own checkpoint `resume_from`, or `reads` one there.
    """
    partly = _is_own(folder, resume_from) or (reads is not None and is_within(folder, reads))
    remove_written(folder, stays=lambda name: partly and Path(name).parts[0] not in _OUTCOME)


def _is_own(folder: Path, checkpoint: str | None) -> bool:
    return checkpoint is not None and is_within(folder / "checkpoints", checkpoint)


def _refuse_other_run(folder: Path, *, resuming: bool) -> None:
    """Raises InputError when `folder` holds a run, unless it is an unfinished one and `resuming`."""
    if (folder / METRICS).is_file() or (folder / CALIBRATION).is_file():
        raise InputError(
            f"output_dir={folder} already holds a finished run; choose another output_dir, or overwrite=true"
        )
    if resuming:
        return
    if (folder / LAST).is_file():
        raise InputError(
            f"output_dir={folder} already holds an unfinished run; resume it with uniad train resume={folder}, choose "
            "another output_dir, or overwrite=true"
        )
    of_begun_run = {CONFIG, *_OUTCOME, "checkpoints", *(Path(name).parts[0] for name in logs(folder))}
    others = [name for name in written(folder) if Path(name).parts[0] not in of_begun_run]
    if others:
        raise InputError(
            f"output_dir={folder} already holds {others[0]} of another command; choose another output_dir, or "
            "overwrite=true"
        )


def refuse_in_the_way(folder: Path, names: Iterable[str]) -> None:
    """Raises InputError for a file at or below one of `names` in `folder` that this package has not written."""
    for name in names:
        obstacle = foreign(folder, name)
        if obstacle is not None:
            raise InputError(
                f"{folder / obstacle}: is in the way, and no run of uniad has written it; move it, or choose another "
                "output_dir"
            )


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all, and `note` it."""
    note(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode(errors="backslashreplace"))  # bytes of a name that are not valid text are escaped


def results_text(evaluation: Evaluation) -> str:
    """The text of `results.csv`: a row for each category, the mean and all pooled."""
    table = [
        [name, row.images, *(f"{value:.6f}" for value in (*row[1:], *interval_ends(evaluation, name)))]
        for name, row in rows(evaluation)
    ]
    return csv_text([["category", "images", *COLUMNS, *ENDS], *table])


def write_evaluation(folder: Path, evaluation: Evaluation, *, facts: dict[str, Any]) -> None:
    """`results.csv`, then `metrics.json`, which marks the run as finished.

    Numbers are fractions of 1; undefined ones are `nan` in the CSV and `null` in the JSON, which also holds how far
    each pixel metric of a row may be off, `error_bounds` (`pixel_auroc_error_bound` is one of them under its former
    name). The ends of 95 % `intervals` are the last columns of the CSV, and in the JSON of those that have one.
    `facts` are further entries of the JSON.
    """
    write_text(folder / RESULTS, results_text(evaluation))
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
        "intervals": {
            name: {metric: ends._asdict() for metric, ends in part.items()}
            for name, part in (evaluation.intervals).items()
        },
        **facts,
    }
    write_text(folder / METRICS, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def write_skipped(folder: Path, skipped: Mapping[Path, str]) -> None:
    """`skipped.csv` with the images that a training left out and why they cannot be read; no file without any."""
    if skipped:
        write_text(folder / SKIPPED, csv_text([["image", "reason"], *([str(path), skipped[path]] for path in skipped)]))


def rows(evaluation: Evaluation) -> list[tuple[str, Row]]:
    """Categories, then `mean`, then `pooled`."""
    return [*evaluation.categories.items(), ("mean", evaluation.mean), ("pooled", evaluation.pooled)]


def interval_ends(evaluation: Evaluation, name: str) -> list[float]:
    """`low` and `high` of the 95 % interval of each metric of the row `name`, in the order of `ENDS`; NaN without."""
    known = evaluation.intervals.get(name, {})
    return [end for column in COLUMNS for end in known.get(column, NO_INTERVAL)]


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """The content of a finished run's `metrics.json`; None when the run is not finished.

    Raises InputError for a file that is no JSON object, or whose rows are none.
    """
    path = folder / METRICS
    if not path.is_file():
        return None
    metrics = read_object(path, _AGAIN)
    for row in _ROWS:
        if not isinstance(metrics.get(row, {}), dict):
            raise InputError(f"{path}: its {row} is a {type(metrics[row]).__name__}, expected an object; {_AGAIN}")
    return metrics


def reported_checkpoint(path: Path, key: str) -> Path:
    """`path` of a checkpoint, or of a run folder the checkpoint whose results it reports (the last where none are).

    Raises InputError, with `key`, for a folder that holds no run.
    """
    if not path.is_dir():
        return path
    last = path / LAST
    if not last.is_file():
        raise InputError(
            f"{key}={path}: is a folder, and no run folder ({LAST} is not in it); give a run folder or a checkpoint"
        )
    return last if read_metrics(path) is None else best_checkpoint(path)


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint whose results a finished run reports; InputError where its `metrics.json` names none."""
    name = (read_metrics(folder) or {}).get("checkpoint")
    if not isinstance(name, str) or not stays_within(name) or not name or Path(name).name != name:
        raise InputError(f"{folder / METRICS}: checkpoint is {name!r:.80}, expected a name such as '{LAST.stem}'")
    return (folder / LAST).with_stem(name)


def _plain(row: Row | Bounds) -> dict[str, float | int | None]:
    return {name: _number(value) for name, value in row._asdict().items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
