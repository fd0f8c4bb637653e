r"""Images listed in a text file or on the standard input, read line by line.

A line is used as it is where there is such a file. Otherwise its variants are tried: without blanks around it, without
quotes, with `/` for the `\` of Windows, and in the other Unicode form.
"""

import codecs
import io
import os
import re
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

from uniad_lightning.errors import InputError, system_reason
from uniad_lightning.files.user_path import expand
from uniad_lightning.prediction.sources.items import Item, broken_item, image_item

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WINDOWS = re.compile(r"[a-z]:[\\/]|\\\\", re.IGNORECASE)
_WAIT = 0.1  # seconds to wait for a line before None is given


def from_list(path: Path, max_pixels: int) -> Iterator[Item]:
    """The images that a text file lists, one path a line, relative to its folder; `#` starts a comment line."""
    for entry in entries(path):
        yield _item(entry, path.parent, max_pixels)


def entries(path: Path) -> Iterator[str]:
    """The paths in the lines of a list. Raises InputError when the file cannot be read."""
    try:
        with path.open("rb") as start:
            encoding, errors = _encoding(start.read(4))
        with path.open(encoding=encoding, errors=errors) as file:
            for line in file:
                entry = _entry(line, path.parent)
                if entry is not None:
                    yield entry
    except OSError as error:
        raise InputError(f"input={path}: cannot be read; {system_reason(error)}") from None


def from_standard_input(max_pixels: int) -> Iterator[Item | None]:
    """The images that the standard input lists, relative to the working directory; None while no line comes.

    Raises InputError when it ends without any.
    """
    named = False
    for line in _lines():
        entry = None if line is None else _entry(line, Path())
        if line is None:
            yield None
        elif entry is not None:
            named = True
            yield _item(entry, Path(), max_pixels)
    if not named:
        raise InputError("input=-: the standard input listed no image; expected one path a line")


def _item(entry: str, folder: Path, max_pixels: int) -> Item:
    """The image of a line."""
    if ADDRESS.match(entry):
        return broken_item(entry, f"{entry}: an address, expected a file; save the image as one and list that")
    try:
        path = folder / expand(entry, within=folder)
    except InputError as error:
        return broken_item(entry, str(error))
    if os.name == "posix" and _WINDOWS.match(entry.replace("/", "\\")) and not os.path.lexists(path):
        return broken_item(
            entry, f"{entry}: a path of Windows, not of this system; list paths relative to {folder.absolute()}"
        )
    if not _is_utf8(entry) and not os.path.lexists(path):
        return broken_item(entry, f"{entry}: no such file, and the list is not in UTF-8; save it as UTF-8")
    return image_item(entry, path, max_pixels)


def _entry(line: str, folder: Path) -> str | None:
    """The path of a line, relative to `folder`; None for a comment and an empty line."""
    line = line.removesuffix("\n").removesuffix("\r")
    entry = line.strip()
    quoted = len(entry) > 1 and entry[0] == entry[-1] and entry[0] in "\"'"
    plain = entry[1:-1] if quoted else entry
    usual = plain.replace("\\", "/") if os.sep == "/" else plain
    if line == usual and usual.isascii() and not usual.startswith("#"):
        return usual or None  # it has no variants, so the file need not be looked up
    for meant in (line, entry, plain, usual, normalize("NFC", usual), normalize("NFD", usual), _western(usual)):
        if meant.strip() and os.path.lexists(folder / meant):
            return meant
    return None if entry.startswith("#") else usual or None


def _western(path: str) -> str:
    """The path with bytes that are not UTF-8 decoded as Windows-1252; unchanged where there are none."""
    return path if _is_utf8(path) else path.encode("utf-8", "surrogateescape").decode("cp1252", "replace")


def _is_utf8(path: str) -> bool:
    """Whether a path that was read as UTF-8 was valid UTF-8."""
    return not any("\udc80" <= letter <= "\udcff" for letter in path)


def _encoding(start: bytes) -> tuple[str, str]:
    """The encoding of a text by its first four bytes, and how bytes that are invalid in it are handled."""
    if start in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32", "replace"
    if start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):  # as PowerShell writes with `>`
        return "utf-16", "replace"
    return "utf-8-sig", "surrogateescape"


def _lines() -> Iterator[str | None]:
    """The lines of the standard input as they come; None each time none has come for a moment."""
    try:
        handle = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):  # none, closed, or replaced by something without a file
        handle = -1
    if handle < 0 or os.name != "posix":  # `select` knows pipes on POSIX only
        yield from sys.stdin or io.StringIO()
        return
    start, rest, decoder = b"", "", None
    # Not `sys.stdin`: waiting in it cannot be interrupted, and `select` does not see what it has buffered.
    while True:
        if not select.select([handle], [], [], _WAIT)[0]:
            yield None
            continue
        part = start + (read := os.read(handle, 1 << 16))
        if decoder is None and read and len(part) < 4 and b"\n" not in part:
            start = part  # too short for a byte order mark
            continue
        if decoder is None:
            encoding, errors = _encoding(part[:4])
            decoder = codecs.getincrementaldecoder(encoding)(errors)
        start = b""
        *lines, rest = (rest + decoder.decode(part, final=not read)).split("\n")
        yield from lines
        if not read:
            break
    yield rest
