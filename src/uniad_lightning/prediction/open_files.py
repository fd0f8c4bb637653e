"""Result files while they are being written: locked by one process, and checked for removal by others."""

import io
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from uniad_lightning.errors import InputError, LostError


def check_present(*files: io.FileIO) -> None:
    """Raises LostError when one of the open files is no longer where it was opened."""
    for file in files:
        path = Path(os.fsdecode(file.name))
        try:
            present = os.path.samestat(path.stat(), os.fstat(file.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            present = False
        if not present:
            raise lost(path)


def lost(path: Path) -> LostError:
    """The error for results that were removed while they were being written."""
    return LostError(
        f"{path}: was removed or replaced while results were written there, and with it the rows of this call; run "
        "uniad predict again"
    )


def open_locked(path: Path) -> io.FileIO:
    """`path`, opened to append to. Raises InputError when another process has opened it so."""
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
def explained(folder: Path) -> Iterator[None]:
    """Turns an OSError within into an InputError that names the file and the remedy."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); what is written is kept: make "
            "room or mend the permissions, then go on with resume=true"
        ) from None


def append(lines: Sequence[tuple[io.FileIO, Iterable[bytes]]]) -> None:
    """Append lines to files; when one cannot be written, all are as they were."""
    check_present(*(file for file, _ in lines))
    ends = [os.fstat(file.fileno()).st_size for file, _ in lines]
    try:
        for file, own in lines:
            _write(file, b"".join(own))
    except BaseException:  # an interrupt, too
        for (file, _), end in zip(lines, ends, strict=True):
            file.truncate(end)
        raise


def _write(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a nearly full disk takes a part
        rest = rest[file.write(rest) :]
