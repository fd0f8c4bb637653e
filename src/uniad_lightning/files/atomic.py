"""Write a file whole: under a temporary name beside it, then renamed, so that a kill leaves the old file or the new."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def temporary_path(path: Path, suffix: str = "") -> Path:
    """The hidden file beside `path` that this process writes to first; `suffix` for libraries that go by it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp{suffix}")


@contextmanager
def replacing(path: Path, temporary: Path | None = None) -> Iterator[Path]:
    """The path to write to, `temporary_path(path)` by default; renamed to `path` at the end of the block.

    It is removed instead, and `path` stays as it was, where the block or the renaming raises.
    """
    temporary = temporary or temporary_path(path)
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:  # an interrupt, too
        with suppress(OSError):  # the error to report is the first one
            temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write `content` to `path`. Raises OSError, with the old file as it was."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
