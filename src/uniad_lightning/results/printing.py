"""A table in the terminal. Imports nothing heavy, so that `uniad cache` answers at once."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from uniad_lightning.errors import printable

Justify = Literal["left", "right"]
LEFT: Justify = "left"
RIGHT: Justify = "right"
_UNBOUNDED = 10_000  # characters, more than any table has


def print_table(title: str, columns: Iterable[tuple[str, Justify]], rows: Iterable[Sequence[object] | None]) -> None:
    """Print a table of `rows`, None for a rule; a column is its heading and side.

    It is as wide as the terminal or COLUMNS, 140 without either; where it would be wider, texts are folded and
    numbers are not. Every text is printed literally: the names of categories and files may contain markup.
    """
    table, console = _table(title, columns, rows), _console()
    if _widths(table, console).maximum > console.width:
        table.padding = (0, 0)
    console.print(table)


def fits(columns: Iterable[tuple[str, Justify]], rows: Iterable[Sequence[object] | None]) -> bool:
    """Whether `print_table` would neither fold nor squeeze these columns."""
    table, console = _table("", columns, rows), _console()
    return _widths(table, console).maximum <= console.width


def _table(title: str, columns: Iterable[tuple[str, Justify]], rows: Iterable[Sequence[object] | None]) -> Table:
    cells = [None if row is None else [printable(str(cell)) for cell in row] for row in rows]
    table = Table(title=printable(title), title_justify="left")
    for place, (heading, side) in enumerate(columns):
        words = [row[place] for row in cells if row is not None and place < len(row)]
        whole = side == RIGHT and not any(" " in word for word in words)
        heading = "\n".join(map(printable, heading.split("\n")))
        table.add_column(heading, justify=side, overflow="fold", no_wrap=whole)
    for row in cells:
        if row is None:
            table.add_section()
        else:
            table.add_row(*row)
    return table


def _console() -> Console:
    plain = partial(Console, markup=False, emoji=False, highlight=False)
    console = plain()
    # Without a terminal rich assumes 80 columns and would fold more than has to be.
    return console if console.is_terminal or "COLUMNS" in os.environ else plain(width=140)


def _widths(table: Table, console: Console) -> Measurement:
    return Measurement.get(console, console.options.update_width(_UNBOUNDED), table)
