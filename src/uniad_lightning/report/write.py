"""`write_report(folders)`: read the runs, draw their images, write the page and its table."""

import base64
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.atomic import write_whole
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.report.content import ReportedRun
from uniad_lightning.report.folders import read_run
from uniad_lightning.report.numbers import first_boundary, score_table
from uniad_lightning.report.page import PageRun, render
from uniad_lightning.report.pictures import Drawn, KeepFull, draw
from uniad_lightning.results.output_folder import hold
from uniad_lightning.results.run_folder import REPORT, REPORT_FILES, REPORT_TABLE, write_text
from uniad_lightning.results.written_files import is_marked, note

IMAGES = ("thumbnails", "embedded", "beside")
LIMIT = 2000  # images with a picture, those that are most wrong first


class Written(NamedTuple):
    """What was written: the page, its table, and how many images could not be read, with the first reason."""

    page: Path
    table: Path
    failed: int
    reason: str


def write_report(
    folders: Sequence[Path],
    *,
    out: Path | None = None,
    images: str = "thumbnails",
    maps: bool = True,
    device: str = "auto",
    limit: int = LIMIT,
) -> Written:
    """Write `report.html` and `report.csv` over the runs in `folders`, by default into the first of them.

    `images` says where full-size images are: nowhere, in the page, or `beside` it in a folder. With `maps` the runs'
    detectors run on `device` once more on up to `limit` images of each. Raises InputError for folders and settings that
    cannot be used.
    """
    if images not in IMAGES:
        raise InputError(f"images={images}: expected one of {', '.join(IMAGES)}.{did_you_mean(images, IMAGES)}")
    runs = [read_run(folder, maps=maps) for folder in folders]
    names = _names(folders)
    place = folders[0] if out is None else out
    options = _options(out, images, maps=maps, device=device, limit=limit)
    command = shlex.join(["uniad", "report", *map(str, folders), *options])
    with hold(place) if is_marked(place) else nullcontext():  # so that a new run there removes the page, too
        pages: list[PageRun] = []
        reasons: list[str] = []
        for number, (name, run) in enumerate(zip(names, runs, strict=True), start=1):
            keep = {"thumbnails": None, "embedded": _embedded, "beside": partial(_write_beside, place, number)}[images]
            drawn, run = _draw(run, _detector(run, device) if maps else None, keep, limit=limit)
            pages.append(PageRun(name, run, drawn))
            reasons += drawn.failed.values()
        page, table = place / REPORT, place / REPORT_TABLE
        write_text(table, score_table(names, [one.run for one in pages]))
        write_text(page, render(pages, command))
    return Written(page, table, len(reasons), next(iter(reasons), ""))


def _options(out: Path | None, images: str, *, maps: bool, device: str, limit: int) -> list[str]:
    """The options of the command line that are not the defaults."""
    given = {
        "out": out and str(out),
        "images": images,
        "maps": str(maps).lower(),
        "device": device,
        "limit": str(limit),
    }
    usual = {"out": None, "images": IMAGES[0], "maps": "true", "device": "auto", "limit": str(LIMIT)}
    return [f"{name}={value}" for name, value in given.items() if value != usual[name]]


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path or, where two are the same, the paths."""
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else list(map(str, folders))


def _detector(run: ReportedRun, device: str) -> Detector:
    if run.checkpoint is None:
        raise InputError(f"{run.folder}: does not name its checkpoint; maps=false leaves the maps out")
    return Detector.load(run.checkpoint, device=device)


def _draw(
    run: ReportedRun, detector: Detector | None, keep_full: KeepFull | None, *, limit: int
) -> tuple[Drawn, ReportedRun]:
    """The pictures of a run, and the run with what its detector says of images whose table does not."""
    badness = _badness(run)
    places = sorted(range(len(run.images)), key=lambda place: -badness[place])[:limit]
    wanted = [place for place in places if run.images[place].score is not None]
    drawn = draw(run, wanted, detector, keep_full)
    missing = set(wanted) - drawn.pictures.keys() - drawn.failed.keys()
    drawn.failed.update({place: f"{run.images[place].path}: is no longer in the input" for place in missing})
    told = list(run.images)
    for place, (found, familiar) in drawn.found.items():
        if not told[place].found:
            told[place] = told[place]._replace(found=found, familiar=familiar)
    return drawn, run._replace(images=tuple(told))


def _badness(run: ReportedRun) -> list[float]:
    """How far each score is on the wrong side of the boundary; without a label, how far above it."""
    limits, start = {image.category: run.deciding(image.category) for image in run.images}, first_boundary(run)
    values = []
    for image in run.images:
        limit = limits[image.category]
        above = float("-inf") if image.score is None else image.score - (limit.score if limit else start)
        values.append(-above if image.label and image.score is not None else above)
    return values


def _embedded(_: int, jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _write_beside(place: Path, number: int, index: int, jpeg: bytes) -> str:
    """Write an image of the run `number` beside the page; returns its path below `place`."""
    name = f"{REPORT_FILES}/{number}/{index:05d}.jpg"
    note(place / name)
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    write_whole(place / name, jpeg)
    return name
