"""Which commands have written in an output folder: a line each, with its time, kept in `.uniad/commands`."""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from uniad_lightning.errors import without_user

_COMMANDS = "commands"
_MOST = 1 << 20  # bytes that are read of it
_VALUES = re.compile(r"""(?<=[?&])([^=&\s]+)=[^&\s,\]'"]*""")  # in the query of an address: they may be secret

_running = ""  # the command of this process; empty where Python calls
_known: set[Path] = set()  # the folders that know it


def shell_line(words: Sequence[str]) -> str:
    """The words of a command as one line, without the user, the password and the query's values of an address."""
    shown = [_VALUES.sub(r"\1=***", word) if "://" in word else word for word in words]
    return without_user(shlex.join(shown)).replace("\n", " ")


def current() -> str:
    """The command of this process; empty where Python calls."""
    return _running


@contextmanager
def running(line: str) -> Iterator[None]:
    """In the block, `line` is the command of this process."""
    global _running
    before, _running = _running, line
    _known.clear()
    try:
        yield
    finally:
        _running = before


def remember(mark: Path) -> None:
    """Add the command of this process to those in the folder `mark`; not where it cannot be written."""
    if _running and mark not in _known:
        _known.add(mark)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        # Bytes of a name that are not valid text are escaped; a link would lead out of a stranger's folder.
        line = f"{now} {_running}\n".encode("utf-8", "backslashreplace")
        with suppress(OSError), open(mark / _COMMANDS, "ab", opener=_without_links) as file:
            file.write(line)


def commands(mark: Path) -> list[str]:
    """The commands in the folder `mark`, oldest first, each `<time> <line>`; none where nothing is known."""
    try:
        with (mark / _COMMANDS).open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace").rstrip("\n").split("\n")
    except OSError:
        return []


def _without_links(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)
