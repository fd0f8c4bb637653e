"""A table in the terminal. Imports nothing heavy, so that `uniad cache` answers at once."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Literal

from rich.console import Console
from rich.table import Table

from uniad_lightning.errors import printable

Justify = Literal["left", "right"]
LEFT: Justify = "left"
RIGHT: Justify = "right"


def print_table(title: str, columns: Iterable[tuple[str, Justify]], rows: Iterable[Sequence[object] | None]) -> None:
    """Print a table of `rows`, None for a rule; a column is its heading and side. 140 wide where there is no terminal.

    Every text is printed literally: the names of categories and files may contain markup.
    """
    table = Table(title=printable(title), title_justify="left")
    for heading, side in columns:
        table.add_column("\n".join(map(printable, heading.split("\n"))), justify=side, overflow="fold")
    for row in rows:
        if row is None:
            table.add_section()
        else:
            table.add_row(*(printable(str(cell)) for cell in row))
    plain = partial(Console, markup=False, emoji=False, highlight=False)
    console = plain()
    # Without a terminal rich assumes 80 columns and would fold the numbers.
    (console if console.is_terminal else plain(width=140)).print(table)
