"""Files of results while they are being written: of one process alone, and noticed when they go."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uniad_lightning.errors import InputError, LostError


def refuse_gone(*files: io.FileIO) -> None:
    """Raises LostError when one of the open files is no longer where it was opened."""
    for file in files:
        path = Path(os.fsdecode(file.name))
        try:
            there = os.path.samestat(path.stat(), os.fstat(file.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            there = False
        if not there:
            raise gone(path)


def gone(path: Path) -> LostError:
    """What is said where results were removed under the hands of who writes them."""
    return LostError(
        f"{path}: was removed or replaced while results were written there, and with it the rows of this call; judge "
        "the pictures again"
    )


def open_alone(path: Path) -> io.FileIO:
    """`path` to append to. Raises InputError when another process has opened it so."""
    file = path.open("ab", buffering=0)
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the file is closed, or its process has died
    except BlockingIOError:
        file.close()
        raise InputError(f"{path}: another uniad predict writes there; choose another output_dir") from None
    except (ImportError, OSError):  # on Windows; a file system without locks
        pass
    return file


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """An OSError within as the one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); what is written is kept: make "
            "room or mend the permissions, then go on with resume=true"
        ) from None
