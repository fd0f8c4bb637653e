"""The other systems of the paper's Tables 1 to 3: what their runs give, beside the paper's numbers of them."""

from collections.abc import Callable, Hashable, Mapping, Sequence

from uniad_lightning.paper.comparison import Comparison, Line
from uniad_lightning.paper.filling import Layout, Rows
from uniad_lightning.paper.gathering import Run
from uniad_lightning.paper.rows import OfSystem

Fill = Callable[[Layout, Rows], Comparison]


def beside_systems(fill: Fill) -> Fill:
    """`fill` for the runs of our own methods, and cells of each other system that has runs, in the paper's order."""

    def fill_all(layout: Layout, rows: Rows) -> Comparison:
        table = fill(layout, rows)
        for place, name in enumerate(layout.others):
            own = _rows_of(name, rows)
            if any(not isinstance(row, OfSystem) for row in own):
                table = _beside(table, name, fill(_layout_of(layout, place), own))
        return table

    return fill_all


def _rows_of(name: str, rows: Rows) -> Mapping[Hashable, Sequence[Run]]:
    """The `rows` with those of the system in the place of our own, which then only say what is tested."""
    others: dict[Hashable, Sequence[Run]] = {
        row if isinstance(row, OfSystem) else OfSystem("", row): runs for row, runs in rows.items()
    }
    own = {row.row: runs for row, runs in rows.items() if isinstance(row, OfSystem) and row.system == name}
    return {**others, **own}


def _layout_of(layout: Layout, place: int) -> Layout:
    """The layout with the paper's numbers of the other system at `place`, which have no deviations."""
    lines = {row: _line_of(line, place) for row, line in layout.lines.items()}
    return layout._replace(lines=lines)


def _line_of(line: Line, place: int) -> Line:
    numbers = line.others[place]
    cells = (
        cell._replace(paper=number, paper_deviation=None) for cell, number in zip(line.cells, numbers, strict=True)
    )
    return line._replace(cells=tuple(cells))


def _beside(table: Comparison, name: str, other: Comparison) -> Comparison:
    """`table` with those cells of a system's own table that have a number of ours, its notes after the name."""
    filled = [k for k in range(len(other.groups)) if any(line.cells[k].ours is not None for line in other.lines)]
    groups = tuple(f"{name} {other.groups[k]}" for k in filled)
    lines = (
        line._replace(cells=(*line.cells, *(found.cells[k] for k in filled)))
        for line, found in zip(table.lines, other.lines, strict=True)
    )
    notes = (*table.notes, *(f"{name}, {note}" for note in other.notes))
    return table._replace(groups=(*table.groups, *groups), lines=tuple(lines), notes=notes)
