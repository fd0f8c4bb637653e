"""Pictures named by a text: a list file, or lines on the standard input. Neither is ever held as a whole."""

import io
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

from uniad_lightning.errors import InputError
from uniad_lightning.sources.items import Item, picture

_WAIT = 0.1  # seconds to wait for a line before saying that none is there


def from_list(path: Path, max_pixels: int) -> Iterator[Item]:
    """The pictures a text file names, one path a line, relative to the file's own folder; `#` starts a comment line."""
    for entry in entries(path):
        yield picture(entry, path.parent / Path(entry).expanduser(), max_pixels)


def entries(path: Path) -> Iterator[str]:
    """The lines of a list that name something. Raises InputError when the file cannot be read."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
            yield from filter(None, map(_entry, file))
    except OSError as error:
        raise InputError(f"input={path}: cannot be read ({error.strerror}); mend its permissions") from None


def from_standard_input(max_pixels: int) -> Iterator[Item | None]:
    """The pictures that lines on the standard input name, relative to the working directory; None while none comes.

    Raises InputError when it ends without having named any.
    """
    named = False
    for line in _lines():
        entry = None if line is None else _entry(line)
        if line is None:
            yield None
        elif entry:
            named = True
            yield picture(entry, Path(entry).expanduser(), max_pixels)
    if not named:
        raise InputError("input=-: the standard input named no picture; expected one path a line")


def _entry(line: str) -> str | None:
    entry = line.strip()
    return entry if entry and not entry.startswith("#") else None


def _lines() -> Iterator[str | None]:
    """The lines of the standard input as they come; None each time none has come for a moment."""
    try:
        handle = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # none, closed, or replaced by something without a file
        handle = -1
    if handle < 0 or os.name != "posix":  # `select` knows pipes on POSIX only
        yield from sys.stdin or io.StringIO()
        return
    rest = b""
    # Not `sys.stdin`: waiting in it could not be ended, and what it has buffered `select` does not see.
    while True:
        if not select.select([handle], [], [], _WAIT)[0]:
            yield None
            continue
        part = os.read(handle, 1 << 16)
        if not part:
            break
        *whole, rest = (rest + part).split(b"\n")
        yield from map(os.fsdecode, whole)
    yield os.fsdecode(rest)
