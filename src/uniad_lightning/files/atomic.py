"""Write a file whole: under a temporary name beside it, then renamed, so that a kill leaves the old file or the new."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<process>\d+)\.tmp(\.\w+)?", re.DOTALL)


def temporary_path(path: Path, suffix: str = "") -> Path:
    """The hidden file beside `path` that this process writes to first; `suffix` for libraries that go by it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")


@contextmanager
def replacing(path: Path, suffix: str = "") -> Iterator[Path]:
    """The path to write to, `temporary_path(path, suffix)`; at the end of the block it is synced and renamed to `path`.

    It is removed instead, and `path` stays as it was, where the block or the renaming raises.
    """
    temporary = temporary_path(path, suffix)
    with renaming(temporary, path):
        yield temporary
        _sync(temporary)  # or after a power cut the new name may lead to a file without content
    with suppress(OSError):  # a file system, or a system, on which folders cannot be synced
        _sync(path.parent)


@contextmanager
def renaming(temporary: Path, path: Path) -> Iterator[None]:
    """Renames the file `temporary`, written in the block, to `path`; removes it where the block or that raises.

    Unlike `replacing` it does not wait for the disk: for one of very many files, which can be made again.
    """
    try:
        yield
        temporary.replace(path)
    except BaseException:  # an interrupt, too
        with suppress(OSError):  # the error to report is the first one
            temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path`. Raises OSError, with the old file as it was."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def remove_left(paths: Iterable[Path]) -> None:
    """Remove what processes that were killed have left of writing `paths`: files of `temporary_path`.

    To be called where no process of another machine writes these paths, since only this machine's processes are known.
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        with suppress(OSError):  # there is no such folder, or it can only be read
            for found in filter(None, map(_TEMPORARY.fullmatch, os.listdir(folder))):
                if found["name"] in wanted and not _runs(int(found["process"])):
                    (folder / found[0]).unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True


def _sync(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
