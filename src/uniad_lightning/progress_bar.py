"""The one kind of progress bar: on stderr, with an ETA; and a line beside it."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

from uniad_lightning.errors import printable


def progress_bar(
    label: str,
    items: Iterable | None = None,
    *,
    total: int | None = None,
    done: int = 0,
    unit: str = "image",
    shown: bool | None = True,
    leave: bool = True,
    delay: float = 0,
) -> tqdm:
    """A bar over `items`, or one to `update`, for `total` units of which some are `done`.

    It is refreshed five times a second on a terminal, and every 30 seconds in a log file, where each refresh is a line.
    With `delay` it appears after so many seconds; without `leave` it disappears at its end; with
    `shown` None it is on a terminal alone.
    """
    return tqdm(
        items,
        desc=label,
        total=total,
        initial=done,
        unit=unit,
        disable=None if shown is None else not shown,
        leave=leave,
        delay=delay,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 30,
    )


def print_beside(line: str) -> None:
    """Print one line on stderr as `print_stderr` does, from any thread, above a bar where there is one."""
    tqdm.write(printable(f"uniad: {line}"), file=sys.stderr)
