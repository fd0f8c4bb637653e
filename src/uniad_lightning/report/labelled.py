"""A test split from the folder of a training, an evaluation or a calibration."""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from uniad_lightning.data.images.channels import check_channels
from uniad_lightning.data.images.decoding import read_record
from uniad_lightning.data.images.white_level import AUTO, as_number, white_level_of
from uniad_lightning.data.records import GOOD, Record
from uniad_lightning.errors import InputError, one_line
from uniad_lightning.files.csv_text import MARK
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.report.content import Reader, ReportedImage, ReportedRun
from uniad_lightning.results.decisions import LABELS
from uniad_lightning.results.run_folder import CALIBRATION, CONFIG, LAST, METRICS, TEST_SCORES
from uniad_lightning.training.build import as_saved, data_config, listed_records
from uniad_lightning.training.checkpoint import load_checkpoint
from uniad_lightning.training.trusted_targets import refuse_foreign

_HEADS = ("path", "category", "label", "score", "decision")


def read_test(folder: Path, *, maps: bool) -> ReportedRun:
    """The run in `folder`. Raises InputError for damaged files and, with `maps`, where its checkpoint is missing."""
    images = _read_scores(folder / TEST_SCORES)
    metrics, config = _read_json(folder / METRICS), _read_text(folder / CONFIG)
    stored = _read_json(folder / CALIBRATION)
    file = _checkpoint_of(folder, metrics or stored)
    checkpoint = None
    if file is not None and (maps or file.is_file()):
        if not file.is_file():
            raise InputError(f"{file}: no such file, the checkpoint of {folder}; maps=false leaves the maps out")
        checkpoint = load_checkpoint(str(file))
    calibration = _calibration(
        stored or (checkpoint or {}).get("calibration"), folder / CALIBRATION if stored else file
    )
    records, notes = _records(folder, config, checkpoint, str(file))
    saved: dict[str, Any] = checkpoint["config"]["data"] if checkpoint else {"white_level": AUTO}
    reading = partial(
        read_record, white_level=as_number(white_level_of(saved)), channels=check_channels(saved.get("channels"))
    )
    images = tuple(image._replace(defect=_kind(records.get(image.path))) for image in images)
    return ReportedRun(
        folder=folder, images=images, labelled=True, calibration=calibration,
        by_category=calibration is not None and calibration.by_category, checkpoint=file, metrics=metrics,
        config=config, source=folder / TEST_SCORES, readers=partial(_readers, images, records, reading), notes=notes,
    )  # fmt: skip


def _calibration(plain: Any, file: Path | None) -> Calibration | None:
    """The boundaries of a `file`, where it has any; `calibration.json` holds facts besides them."""
    if not plain:
        return None
    try:
        return Calibration.from_plain(plain)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: holds no boundaries as uniad calibrate writes them ({one_line(error)})") from None


def _kind(record: Record | None) -> str:
    return "" if record is None else record.defect


def _read_scores(path: Path) -> tuple[ReportedImage, ...]:
    """The rows of `test_scores.csv`. Raises InputError that names the first line that is none."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file, strict=True)
            if rows.fieldnames is None or not set(_HEADS) <= set(rows.fieldnames):
                raise InputError(f"{path}, line 1: expected the columns {', '.join(_HEADS)}; {_AGAIN}")
            images = tuple(_image(row, f"{path}, line {rows.line_num}") for row in rows)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is damaged ({one_line(error)}); {_AGAIN}") from None
    if not images:
        raise InputError(f"{path}: has no rows; {_AGAIN}")
    return images


_AGAIN = "write it again with uniad evaluate"


def _image(row: Mapping[str, str | None], place: str) -> ReportedImage:
    if None in row.values() or None in row:
        raise InputError(f"{place}: has {'fewer' if None in row.values() else 'more'} cells than the head; {_AGAIN}")
    cells = {name: str(cell).removeprefix(MARK) for name, cell in row.items()}
    if cells["label"] not in LABELS:
        raise InputError(f"{place}: label is {cells['label']!r:.40}, expected good or defective; {_AGAIN}")
    score = _score(cells["score"])
    if not math.isfinite(score):
        raise InputError(f"{place}: score is {cells['score']!r:.40}, expected a number; {_AGAIN}")
    found = cells.get("category_found", "")
    familiar = None if not found else cells["decision"] != "unknown"
    label = LABELS.index(cells["label"])
    return ReportedImage(
        cells["path"], cells["category"], label, "", score, cells["decision"], found, familiar, error=""
    )


def _score(text: str) -> float:
    """The score of a cell, NaN where it is none. Nine digits tell apart all float32 numbers, so it is the exact one."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    exact = float(np.float32(value)) if abs(value) < 1e38 else value
    return exact if f"{exact:.9g}" == text else value


def _read_json(path: Path) -> dict[str, Any]:
    """The mapping in a file, empty where there is none. Raises InputError for another content."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({one_line(error)}); restore it, or run its command again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no mapping; restore it, or run its command again")
    return content


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="backslashreplace") if path.is_file() else ""


def _checkpoint_of(folder: Path, facts: Mapping[str, Any]) -> Path | None:
    """The checkpoint that the scores are of: a training names its own by its stem, other commands by its path."""
    named = facts.get("checkpoint")
    if not isinstance(named, str):
        return None
    own = (folder / LAST).with_stem(named) if "/" not in named else None
    return own if own is not None and own.is_file() else Path(named)


def _records(
    folder: Path, config: str, checkpoint: Mapping[str, Any] | None, file: str
) -> tuple[dict[str, Record], tuple[str, ...]]:
    """The images of the data set by path, with kinds of defect and masks, and a note where it cannot be listed."""
    try:
        data = _data_config(folder, config, checkpoint, file)
        splits = listed_records(data)
    except InputError as error:
        return {}, (f"kinds of defect and masks are not known: {one_line(error)}",)
    return {str(record.image): record for record in splits.all}, ()


def _data_config(folder: Path, config: str, checkpoint: Mapping[str, Any] | None, file: str) -> DictConfig:
    """The data of a run: those of its checkpoint with what an evaluation has put in their place."""
    try:
        own = OmegaConf.to_container(OmegaConf.create(config)) if config else {}
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise InputError(f"{folder / CONFIG}: is damaged ({one_line(error)})") from None
    given = own.get("data") if isinstance(own, dict) else None
    if given is not None:
        refuse_foreign({"data": given}, str(folder / CONFIG))
    saved = None if checkpoint is None else checkpoint["config"]["data"]
    if saved is None:
        if not given or "source" not in given:
            raise InputError(f"{folder}: neither its settings nor its checkpoint name the data")
        return DictConfig(given)
    refuse_foreign(checkpoint["config"], f"ckpt_path={file}")  # type: ignore[index]
    with as_saved(file):
        return data_config(DictConfig(given or {"root": None}), DictConfig(saved))


def _readers(
    images: tuple[ReportedImage, ...],
    records: Mapping[str, Record],
    reading: Callable[[Record], tuple[np.ndarray, np.ndarray]],
    wanted: frozenset[int],
) -> Iterator[tuple[int, Reader]]:
    """What decodes the images at the places `wanted`."""
    for place in sorted(wanted):
        path = images[place].path
        yield place, partial(_image_and_mask, records.get(path) or Record(Path(path), (), "", GOOD, 0), reading)


def _image_and_mask(
    record: Record, reading: Callable[[Record], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray | None]:
    image, mask = reading(record)
    return image, mask if record.masks else None
