"""The images of a folder of `uniad predict`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from uniad_lightning.data.images.channels import Channels, check_channels
from uniad_lightning.data.images.white_level import as_number, check_white_level, white_level_of
from uniad_lightning.errors import InputError, one_line
from uniad_lightning.feedback.history import Entry, latest, read_history
from uniad_lightning.feedback.predictions import cell_of
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.inspection.given_boundary import GivenBoundary, with_given
from uniad_lightning.prediction.files import SETTINGS, part_files
from uniad_lightning.prediction.rows import Row, read_rows
from uniad_lightning.prediction.sources.address import is_live
from uniad_lightning.prediction.sources.items import read_as
from uniad_lightning.prediction.sources.opening import open_source
from uniad_lightning.report.content import Reader, ReportedImage, ReportedRun
from uniad_lightning.results.run_folder import CONFIG, JOURNAL
from uniad_lightning.training.checkpoint import load_checkpoint


def read_predictions(folder: Path) -> ReportedRun:
    """The predictions in `folder`. Raises InputError for damaged files, without rows, and for parts not yet merged."""
    if part_files(folder):
        raise InputError(f"{folder}: holds parts of several processes; uniad predict ... resume=true merges them")
    rows = {row["path"]: row for _, row in read_rows(folder / JOURNAL)}  # of a file that was replaced, the last
    if not rows:
        raise InputError(f"{folder / JOURNAL}: has no rows; let uniad predict inspect some images")
    settings, config = _settings(folder), _config(folder)
    file = Path(str(settings.get("ckpt_path", "")))
    calibration, found_level, channels = _of_detector(file, settings.get("boundary"))
    given = settings.get("category")
    verdicts = latest(read_history(folder))
    images = tuple(_image(row)._replace(verdict=_verdict(verdicts, row["path"])) for row in rows.values())
    sizes = [row["size"] for row in rows.values()]
    level = as_number(config.get("white_level") or found_level)
    return ReportedRun(
        folder=folder, images=images, labelled=False, calibration=calibration,
        by_category=calibration is not None and (calibration.by_category or given is not None),
        checkpoint=file if settings.get("ckpt_path") else None, metrics={},
        config=(folder / CONFIG).read_text(encoding="utf-8") if (folder / CONFIG).is_file() else "",
        source=folder / JOURNAL, readers=partial(_readers, images, sizes, settings, config, level, channels),
    )  # fmt: skip


def _of_detector(file: Path, boundary: GivenBoundary) -> tuple[Calibration | None, int | str, Channels | None]:
    """The boundaries, white level and channels in a checkpoint or an exported file; none where it is gone.

    `boundary` is what the prediction was given in place of the file's own.
    """
    if not file.is_file():
        return None, "auto", None
    if file.suffix == ".onnx":
        detector = Detector.load(file, device="cpu", boundary=boundary)
        return detector.calibration, detector.white_level, detector.channels
    checkpoint = load_checkpoint(str(file))
    plain = checkpoint.get("calibration")
    data = checkpoint["config"]["data"]
    channels = check_channels(data.get("channels"))
    calibration = Calibration.from_plain(plain) if plain else None
    moved = with_given(calibration, boundary, categories=checkpoint.get("categories", ()))
    return moved, white_level_of(data), channels


def _image(row: Row) -> ReportedImage:
    category = str(row["category"])
    return ReportedImage(
        row["path"], category, None, "", row["score"], row["decision"], category, row["familiar"], row["error"]
    )


def _verdict(verdicts: Mapping[str, Entry], path: str) -> str:
    entry = verdicts.get(cell_of(path))
    return "" if entry is None else entry.verdict


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); restore it, or predict anew") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no mapping; restore it, or predict anew")
    return content


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        content = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise InputError(f"{path}: is damaged ({one_line(error)}); restore it, or predict anew") from None
    config = {str(name): value for name, value in content.items()} if isinstance(content, dict) else {}
    megapixels, level = config.get("max_megapixels", 0), config.get("white_level")
    if isinstance(megapixels, bool) or not isinstance(megapixels, int | float):
        raise InputError(f"{path}: max_megapixels={megapixels!r:.40}, expected a number; restore it, or predict anew")
    if level is not None:
        check_white_level(level)
    return config


def _readers(
    images: tuple[ReportedImage, ...],
    sizes: Sequence[int | None],
    settings: Mapping[str, Any],
    config: Mapping[str, Any],
    white_level: int,
    channels: Channels | None,
    wanted: frozenset[int],
) -> Iterator[tuple[int, Reader]]:
    """What decodes the images at the places `wanted`, from the input of that call; paths on stdin are gone."""
    given = str(settings.get("input", "-"))
    if given == "-" or is_live(given):  # the frames of a camera are gone, too
        return
    places = {(images[place].path, sizes[place]): place for place in wanted}  # of another size it is another image
    megapixels = config.get("max_megapixels", 100)
    source = open_source(given, every=settings.get("every", 1), max_pixels=round(1e6 * float(megapixels)))
    for item in read_as(source, white_level=white_level, channels=channels).items:
        place = None if item is None else places.pop((item.name, item.size), None)
        if item is not None and place is not None:
            yield place, partial(_without_mask, item.read)
        if not places:
            return


def _without_mask(read: Callable[[], np.ndarray]) -> tuple[np.ndarray, None]:
    return read(), None
