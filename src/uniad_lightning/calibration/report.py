"""What a calibration leaves behind: a table of what its boundaries would have done, files, and a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from uniad_lightning.errors import say
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.results.labels import label
from uniad_lightning.results.run_folder import CALIBRATION, OUTCOMES, write_text
from uniad_lightning.results.tables import LEFT, RIGHT, print_table
from uniad_lightning.results.written_files import note

COLOURS = ("tab:gray", "tab:blue", "tab:red")


class Outcome(NamedTuple):
    """What a boundary would have done on the test images of one product, or of all.

    Attributes:
        product: its name.
        boundary: the boundary's score.
        good: good test images.
        false_alarms: those above the boundary.
        defective: defective test images.
        misses: those not above it.
    """

    product: str
    boundary: float
    good: int
    false_alarms: int
    defective: int
    misses: int


def show_calibration(calibration: Calibration, one: Sequence[Outcome], own: Sequence[Outcome]) -> None:
    """Print the boundary, and false alarms and misses per product, of the one boundary and of the products' own."""
    overall = calibration.overall
    used = "set on" if calibration.method.startswith("rate") else "its rate estimated on"
    say(
        f"boundary for all products ({calibration.method}): {overall.score:.4f}, {used} {overall.images} good images; "
        f"expect {overall.rate:.2%} of good images above it ({overall.low:.2%} to {overall.high:.2%})"
    )
    numbers = ("good", "defective", "one boundary:\nfalse alarms", "misses", "own boundary:\nfalse alarms", "misses")
    rows: list[Sequence[object] | None] = []
    by_name = {row.product: row for row in own}
    for row in one:
        if row.product == "all":
            rows.append(None)
        mine = by_name.get(row.product)
        theirs = (mine.false_alarms, mine.misses) if mine else ("", "")
        rows.append([row.product, row.good, row.defective, row.false_alarms, row.misses, *theirs])
    print_table("on the test images", [("product", LEFT), *((title, RIGHT) for title in numbers)], rows)


def write_report(
    folder: Path, calibration: Calibration, one: Sequence[Outcome], own: Sequence[Outcome], facts: dict[str, Any]
) -> None:
    """`outcomes.csv` and `calibration.json` in `folder`."""
    table = [[kind, *row] for kind, rows in (("one", one), ("own", own)) for row in rows]
    write_text(folder / OUTCOMES, csv_text([["kind", *Outcome._fields], *table]))
    write_text(folder / CALIBRATION, json.dumps({**calibration.plain(), **facts}, indent=2) + "\n")


def draw_scores(path: Path, calibration: Calibration, scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """One row per product: `scores` of its images by kind, the one boundary, and the product's own."""
    figure = Figure(figsize=(9, 1.2 + 0.75 * len(scores)), layout="constrained")
    axes = figure.subplots()
    for row, (name, kinds) in enumerate(scores.items()):
        for place, (kind, values) in enumerate(kinds.items()):
            height = np.full(len(values), row + 0.25 * (place - 1))
            axes.plot(values, height, "|", color=COLOURS[place], markersize=9, label=kind if row == 0 else None)
        if name in calibration.products:
            own = calibration.products[name].score
            axes.plot([own, own], [row - 0.45, row + 0.45], ":", color="black", label="own" if row == 0 else None)
    axes.axvline(calibration.overall.score, color="black", label="one boundary")
    axes.set_yticks(range(len(scores)), list(map(label, scores)))
    axes.invert_yaxis()
    axes.set_xlabel("image score")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    note(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
