"""One GPU for each of the trainings that run at the same time on a machine."""

import getpass
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_WAIT = 1.0  # seconds between two looks


@contextmanager
def claimed(count: int, *, folder: Path | None = None) -> Iterator[int]:
    """The number of one of `count` devices that no other process claims; waits for one where there is none.

    Claims are locked files in `folder`, the user's own below the system's temporary one; they end with it, too.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"uniad-devices-{getpass.getuser()}"
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / str(number)) for number in range(count)]
    while True:
        for number, lock in enumerate(locks):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                yield number
            finally:
                lock.release()
            return
        time.sleep(_WAIT)
