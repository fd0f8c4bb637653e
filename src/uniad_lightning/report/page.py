"""The page itself: one HTML file with its style, its program and its data, that asks nothing of any network."""

import base64
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from platform import python_version
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from uniad_lightning import __version__
from uniad_lightning.errors import printable
from uniad_lightning.heatmap import heat_colours
from uniad_lightning.report.content import ReportedImage, ReportedRun
from uniad_lightning.report.numbers import categories_of, first_boundary, numbers_of
from uniad_lightning.report.pictures import Drawn, Picture, levels, scales
from uniad_lightning.results.history import commands
from uniad_lightning.results.written_files import MARK

_TEMPLATES = Path(__file__).parent / "templates"
_PROGRAM = ("state.js", "numbers.js", "charts.js", "table.js", "gallery.js", "viewer.js", "verdicts.js", "start.js")


class PageRun(NamedTuple):
    """A run as the page names it, with its pictures."""

    name: str
    run: ReportedRun
    drawn: Drawn


def render(runs: Sequence[PageRun], command: str) -> str:
    """The HTML of the page over `runs`, which the shell line `command` has made."""
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True)
    colours = heat_colours(np.arange(256), 0, 255)
    data = {"runs": list(map(_run, runs)), "colours": colours.tolist()}
    return environment.get_template("report.html").render(
        title=", ".join(printable(one.name) for one in runs),
        runs=[_foot(one) for one in runs],
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        versions={"uniad-lightning": __version__, "torch": torch.__version__, "Python": python_version()},
        command=command,
        style=_included("report.css"),
        program=Markup("\n").join(_included(name) for name in _PROGRAM),
        data=Markup(_json(data)),
    )


def _included(name: str) -> Markup:
    return Markup((_TEMPLATES / name).read_text(encoding="utf-8"))


def _json(data: Any) -> str:
    """JSON that ends no script element, whatever a file is called; NaN is null."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def _run(one: PageRun) -> dict[str, Any]:
    """A run as the page's program reads it."""
    run, names = one.run, categories_of(one.run)
    colour = scales(run, one.drawn.pictures)
    own = {name: run.deciding(name) for name in names}
    return {
        "name": printable(one.name),
        "labelled": run.labelled,
        "feedback": None if run.labelled else _feedback(run),
        "products": [printable(name) for name in names],
        "numbers": [_row(row._asdict()) for row in numbers_of(run)] if run.labelled else [],
        "boundary": {
            "method": run.calibration.method if run.calibration else None,
            "own": run.by_category,
            "one": first_boundary(run),
            "each": [first_boundary(run) if limit is None else limit.score for limit in own.values()],
        },
        "images": [
            _image(image, one.drawn.pictures.get(place), names, colour) for place, image in enumerate(run.images)
        ],
        "scales": [_opacity_start(colour.get(name)) for name in names],
    }


def _feedback(run: ReportedRun) -> dict[str, str]:
    """Under which name a browser keeps the verdicts on a run, and the command that takes them."""
    folder = str(run.folder.absolute())
    return {
        "key": printable(folder),
        "command": printable(shlex.join(["uniad", "feedback", f"predictions={folder}", "verdicts=verdicts.csv"])),
    }


def _row(row: dict[str, Any]) -> dict[str, Any]:
    low, high = row.pop("interval")
    plain = {name: _number(value) if isinstance(value, float) else value for name, value in row.items()}
    return {**plain, "category": printable(str(plain["category"])), "low": _number(low), "high": _number(high)}


def _opacity_start(scale: Any) -> float:
    """The level of the boundary among those of the maps, from which an overlay is coloured, as `heatmap.overlay`."""
    if scale is None or scale.boundary is None:
        return 0.0
    return 255 * (scale.boundary - scale.low) / max(scale.high - scale.low, 1e-12)


def _image(
    image: ReportedImage, picture: Picture | None, names: Sequence[str], colour: Mapping[str, Any]
) -> dict[str, Any]:
    """An image as the page's program reads it; short names, since there are thousands."""
    plain: dict[str, Any] = {
        "path": printable(image.path),
        "product": names.index(image.category),
        "label": image.label,
        "kind": printable(image.defect),
        "score": image.score,
    }
    if image.found and image.found != image.category:
        plain["found"] = printable(image.found)
    if image.familiar is False:
        plain["unfamiliar"] = True
    if image.verdict:
        plain["verdict"] = image.verdict
    if image.error:
        plain["error"] = printable(image.error)
    if picture is not None:
        plain |= {"thumb": _text(picture.thumbnail), "size": picture.size}
        if picture.mask is not None:
            plain["mask"] = _text(picture.mask)
        if picture.heat is not None:
            plain |= {"map": _text(levels(picture.heat, colour[image.category])), "region": picture.region}
        if picture.full:
            plain["full"] = picture.full
    return plain


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _foot(one: PageRun) -> dict[str, Any]:
    """What stands at the foot of the page about a run, each text as it is."""
    run = one.run
    facts = {"folder": str(run.folder), "scores from": run.source.name}
    if run.checkpoint is not None:
        facts["checkpoint"] = str(run.checkpoint)
    if run.calibration is not None:
        overall = run.calibration.overall
        facts["boundary"] = (
            f"{run.calibration.method}, set on {overall.images} good images; expected share of good images above it "
            f"{overall.rate:.1%} ({overall.low:.1%} to {overall.high:.1%})"
            if overall.images
            else f"{run.calibration.method}, given; how many good images are above it is not known"
        )
    facts = {name: printable(value) for name, value in facts.items()}
    return {
        "name": printable(one.name),
        "facts": facts,
        "commands": list(map(printable, commands(run.folder / MARK))),
        "config": run.config,
        "notes": list(map(printable, _notes(one))),
    }


def _notes(one: PageRun) -> list[str]:
    run, notes = one.run, list(one.run.notes)
    if run.changed:
        notes.append(f"the boundary was set anew since: {run.changed} decisions in {run.source.name} were others")
    if one.drawn.failed:
        reasons = list(one.drawn.failed.values())
        notes.append(f"{len(reasons)} images have no picture; the first: {reasons[0]}")
    if one.drawn.largest > _SAME:
        notes.append(
            f"the maps are of the checkpoint as it is now, whose scores differ from {run.source.name} by up to "
            f"{one.drawn.largest:.1%} of their range"
        )
    return notes


_SAME = 0.01  # of the range of scores: float16 features and other batch sizes stay far below
