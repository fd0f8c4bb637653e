"""The report of a calibration: a table of false alarms and misses, files, and a plot of the scores."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from uniad_lightning.calibration.recognition import Recognition
from uniad_lightning.calibration.scores import Scores
from uniad_lightning.errors import print_stdout
from uniad_lightning.files.atomic import replacing
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.results.labels import label
from uniad_lightning.results.outcomes import Outcome
from uniad_lightning.results.printing import LEFT, RIGHT, print_table
from uniad_lightning.results.run_folder import CALIBRATION, OUTCOMES, TEST_SCORES, write_text
from uniad_lightning.results.written_files import note

COLOURS = ("tab:gray", "tab:blue", "tab:red")


def show_boundaries(calibration: Calibration) -> None:
    """Print the boundaries, those first that decide on images whose category is not given."""
    own = [_boundary_row(name, calibration.categories[name]) for name in sorted(calibration.categories)]
    one = [_boundary_row("one for all", calibration.overall)]
    rows = [*own, None, *one] if calibration.by_category else [*one, None, *own]
    columns = ("boundary", "good images", "expected above it", "at least", "at most")
    title = f"boundaries ({calibration.method}), and the share of good images above each, 95 % sure"
    print_table(title, [("category", LEFT), *((column, RIGHT) for column in columns)], rows)


def _boundary_row(name: str, of: Boundary) -> list[str]:
    return [name, f"{of.score:.4f}", str(of.images), f"{of.rate:.2%}", f"{of.low:.2%}", f"{of.high:.2%}"]


def show_outcomes(calibration: Calibration, overall: Sequence[Outcome], own: Sequence[Outcome]) -> None:
    """Print false alarms and misses per category, of the categories' own boundaries and of the one for all."""
    by_name = {row.category: row for row in own}
    rows: list[Sequence[object] | None] = []
    for row in overall:
        if row.category == "all":
            rows.append(None)
        own_row = by_name.get(row.category)
        counts = [
            (of.false_alarms, of.misses) if of else ("", "")
            for of in ((own_row, row) if calibration.by_category else (row, own_row))
        ]
        rows.append([row.category, row.good, row.defective, *counts[0], *counts[1]])
    kinds = ("own", "one") if calibration.by_category else ("one", "own")
    titles = [title for kind in kinds for title in (f"{kind} boundary:\nfalse alarms", "misses")]
    print_table(
        "on the test images", [("category", LEFT), *((title, RIGHT) for title in ("good", "defective", *titles))], rows
    )


def show_deciding(calibration: Calibration, recognition: Recognition | None, *, asked: str) -> None:
    """Print which boundary decides on an image whose category is not given, and why."""
    one = "one boundary decides for all categories"
    if asked == "one":
        print_stdout(f"{one} (boundaries=one)")
        return
    if recognition is None or recognition.missing:
        unknown = "of any" if recognition is None else f"of {', '.join(recognition.missing)}"
        print_stdout(f"{one}: to find the category of an image, the detector has no features of train images {unknown}")
        return
    right = (
        f"the category of the nearest train image is right for {recognition.right} of {recognition.images} good images"
    )
    if calibration.by_category:
        print_stdout(f"each image is decided by its category's own boundary; {right}")
    else:
        print_stdout(f"{one}: {right} only; category=NAME tells it to uniad predict")


def show_rates(rates: Mapping[float, Outcome]) -> None:
    """Print the false alarms and misses that boundaries for other rates would have."""
    titles = ("rate", "false alarms", "of good", "misses", "of defective")
    rows: list[Sequence[object] | None] = []
    for row, alike in groupby(rates, key=lambda rate: rates[rate]._replace(boundary=0.0)):
        first, *others = (f"{rate:g}" for rate in alike)
        between = f"{first} to {others[-1]}" if others else first
        rows.append([between, row.false_alarms, row.good, row.misses, row.defective])
    print_table("the test images at other rates (uniad calibrate rate=...)", [(title, RIGHT) for title in titles], rows)


def show_highest(good: Scores, calibration: Calibration) -> None:
    """Print the good images with the highest scores, by category, since they set the boundaries."""
    rows: list[Sequence[object] | None] = []
    for name in sorted(calibration.categories):
        own = good.of(name)
        if len(own.score):
            order = np.argsort(-own.score)
            following = f"{own.score[order[1]]:.4f}" if len(order) > 1 else ""
            image = "/".join(Path(str(own.records[order[0]].image)).parts[-3:])
            highest = f"{own.score[order[0]]:.4f}"
            rows.append([name, f"{calibration.categories[name].score:.4f}", highest, following, image])
    if rows:
        columns = [("category", LEFT), *((title, RIGHT) for title in ("boundary", "highest", "next"))]
        print_table("good images with the highest scores: is each really good?", [*columns, ("image", LEFT)], rows)


def write_report(
    folder: Path, calibration: Calibration, overall: Sequence[Outcome], own: Sequence[Outcome], facts: dict[str, Any]
) -> None:
    """Write `outcomes.csv` and `calibration.json`, which holds the `facts` too, in `folder`."""
    table = [[kind, *row] for kind, rows in (("one", overall), ("own", own)) for row in rows]
    write_text(folder / OUTCOMES, csv_text([["kind", *Outcome._fields], *table]))
    write_text(folder / CALIBRATION, json.dumps({**calibration.plain(), **facts}, indent=2) + "\n")


def write_decisions(folder: Path, test: Scores, calibration: Calibration, recognition: Recognition | None) -> None:
    """Write `test_scores.csv` in `folder`: what `uniad predict` would decide of each test image."""
    found: list[str | None] = [None] * len(test.records)
    unfamiliar = [False] * len(test.records)
    if recognition is not None and test.descriptor is not None and len(test.descriptor):
        distance, places = recognition.familiarity.nearest(test.descriptor)
        found = [recognition.familiarity.names[place] for place in places.tolist()]
        unfamiliar = (distance > recognition.familiarity.boundary).tolist()
    rows: list[Sequence[object]] = [["path", "category", "label", "score", "decision", "category_found"]]
    for record, score, name, strange in zip(test.records, test.score, found, unfamiliar, strict=True):
        below = "unknown" if strange else "good"
        decision = "defective" if not score <= calibration.deciding(name).score else below
        label_of = "defective" if record.label else "good"
        rows.append([str(record.image), record.category, label_of, f"{score:.9g}", decision, name or ""])
    write_text(folder / TEST_SCORES, csv_text(rows))


def draw_scores(path: Path, calibration: Calibration, scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Plot a row per category: `scores` of its images by kind, the boundary for all, and the category's own."""
    figure = Figure(figsize=(9, 1.2 + 0.75 * len(scores)), layout="constrained")
    axes = figure.subplots()
    for row, (name, kinds) in enumerate(scores.items()):
        for place, (kind, values) in enumerate(kinds.items()):
            height = np.full(len(values), row + 0.25 * (place - 1))
            axes.plot(values, height, "|", color=COLOURS[place], markersize=9, label=kind if row == 0 else None)
        if name in calibration.categories:
            own = calibration.categories[name].score
            axes.plot([own, own], [row - 0.45, row + 0.45], ":", color="black", label="own" if row == 0 else None)
    axes.axvline(calibration.overall.score, color="black", label="one boundary")
    axes.set_yticks(range(len(scores)), list(map(label, scores)))
    axes.invert_yaxis()
    axes.set_xlabel("image score")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    note(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, path.suffix) as temporary:
        figure.savefig(temporary, dpi=120)
