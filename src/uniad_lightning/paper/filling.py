"""The lines of a table from runs: the row of each run, and the numbers of each row over seeds."""

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.layouts.published import Published
from uniad_lightning.paper.comparison import Cell, Comparison, Line, over_seeds
from uniad_lightning.paper.gathering import Run, by_seed, refuse_differing, refuse_differing_systems
from uniad_lightning.paper.plots import draw_bars
from uniad_lightning.paper.rows import CATEGORIES, Settings

Rows = Mapping[Hashable, Sequence[Run]]
Measure = tuple[str, str]  # a row of `metrics.json` and a number in it

MEAN = "mean"


class Layout(NamedTuple):
    """One table of the paper.

    Attributes:
        title: its number and what it compares.
        overrides: overrides of the commands that train its runs, after those of `experiment`.
        varies: settings in which its runs may differ.
        row_of: the row that settings belong to, None for no row.
        heads: heads of the columns of labels.
        lines: labels and the paper's numbers, by row.
        measures: the number in a cell of a line, by head.
        fill: makes a comparison of the runs by row.
        data: the data of the paper's numbers.
        draw: plots a comparison.
        others: heads of the columns with other methods.
        experiment: overrides that give a command the paper's settings.
    """

    title: str
    overrides: tuple[str, ...]
    varies: tuple[str, ...]
    row_of: Callable[[Settings], Hashable]
    heads: tuple[str, ...]
    lines: Mapping[Hashable, Line]
    measures: Mapping[str, Measure]
    fill: Callable[["Layout", Rows], Comparison]
    data: Published
    draw: Callable[[Path, Comparison], None] = draw_bars
    others: tuple[str, ...] = ()
    experiment: str = "experiment=mvtec data.root=mvtec_ad"

    def table(self, lines: Sequence[Line], notes: Sequence[str]) -> Comparison:
        """These lines under the heads of this table, each of the `notes` once."""
        distinct = tuple(dict.fromkeys(notes))
        return Comparison(self.title, self.heads, tuple(self.measures), self.others, tuple(lines), distinct)


def place(layout: Layout, runs: Sequence[Run]) -> tuple[dict[Hashable, list[Run]], dict[Path, str]]:
    """The `runs` by row, and by folder the reason why a run has no row.

    Raises InputError for runs that differ in a setting that the table does not vary.
    """
    rows: dict[Hashable, list[Run]] = {}
    unfit: dict[Path, str] = {}
    for run in runs:
        row = layout.row_of(run.settings)
        if "model._target_" not in run.settings:
            unfit[run.folder] = "is not a training: its configuration has no model"
        elif row is None:
            varied = [f"{name}={run.settings[name]}" for name in layout.varies if name in run.settings]
            unfit[run.folder] = f"is in no row of the table: {', '.join(varied)}"
        else:
            rows.setdefault(row, []).append(run)
    refuse_differing_systems([run for row in rows.values() for run in row], varied=layout.varies)
    for placed in rows.values():  # in a row nothing may vary; but one network has two classes
        refuse_differing(placed, varied=("model._target_", *([CATEGORIES] if placed[0].alone else [])))
    return rows, unfit


def per_setting(layout: Layout, rows: Rows) -> Comparison:
    """One line for each row: every measure over the seeds of its runs."""
    notes: list[str] = []
    lines = []
    for row, line in layout.lines.items():
        seeds = whole_seeds(rows, row, notes)
        ours = [over_seeds(_value(part, measure) for part in seeds) for measure in layout.measures.values()]
        cells = (cell._replace(ours=number) for cell, number in zip(line.cells, ours, strict=True))
        lines.append(line._replace(cells=tuple(cells)))
    return layout.table(lines, notes)


def per_split(layout: Layout, rows: Rows) -> Comparison:
    """As `per_setting`, and a line `mean` over the rows, of the seeds that have a run in each."""
    comparison = per_setting(layout, rows)
    (measure,) = layout.measures.values()
    by_row = {row: by_seed(rows.get(row, ())) for row in layout.lines if row != MEAN}
    whole = set.intersection(*(set(seeds) for seeds in by_row.values()))
    ours = over_seeds(_value([seeds[seed][0] for seeds in by_row.values()], measure) for seed in sorted(whole))
    *lines, last = comparison.lines
    return comparison._replace(lines=(*lines, last._replace(cells=(last.cells[0]._replace(ours=ours),))))


def per_category(layout: Layout, rows: Rows) -> Comparison:
    """One line for each category and one for their mean; the cells are the unified and the separate case.

    Without the paper's numbers of categories if the data have any category that the paper's data have not.
    """
    notes: list[str] = []
    tested = {name: None for runs in rows.values() for run in runs for name in run.categories}
    known = tested.keys() <= layout.data.images.keys()
    names = [name for name in layout.lines if name in tested] if known else sorted(tested)
    lines = []
    for name in (*names, MEAN):
        empty = Line((name,), tuple(Cell(None) for _ in layout.measures), ((),) * len(layout.others))
        line = layout.lines[name] if known or name == MEAN else empty
        cells = []
        for cell, (case, measure) in zip(line.cells, layout.measures.items(), strict=True):
            if name == MEAN:
                ours = over_seeds(_value(part, measure) for part in whole_seeds(rows, case, notes))
            else:
                having = [run for run in rows.get(case, ()) if name in run.categories]
                ours = over_seeds(run.categories[name][measure[1]] for run in having)
            cells.append(cell._replace(ours=ours))
        lines.append(line._replace(cells=tuple(cells)))
    return layout.table(lines, notes)


def whole_seeds(rows: Rows, row: Hashable, notes: list[str]) -> list[list[Run]]:
    """The runs of a row for each complete seed: one run or, in the separate case, one for each category.

    Adds missing runs to the `notes`.
    """
    tested = {name for runs in rows.values() for run in runs for name in run.categories}
    whole = []
    for seed, part in by_seed(rows.get(row, ())).items():
        missing = tested - {run.alone for run in part} if part[0].alone else set()
        if missing:
            notes.append(f"separate case, seed {seed}: no run of {', '.join(sorted(missing))}, so it has no mean")
        else:
            whole.append(part)
    return whole


def _value(part: Sequence[Run], measure: Measure) -> float | None:
    """The mean of a number over the runs of one seed, None where it is undefined in all."""
    row, name = measure
    values = [run.metrics[row][name] for run in part if run.metrics[row].get(name) is not None]
    return statistics.fmean(values) if values else None
