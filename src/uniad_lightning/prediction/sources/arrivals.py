"""When a file that is coming into a folder is whole. Knows names and times only, opens nothing."""

import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

# All in seconds.
GRACE = 0.2  # after a file was closed: programs that copy set its time a moment later, and some open it once more
STILL = 1.0  # a file of which no closing was told is whole when it has stayed as it is for so long
STILL_EMPTY = 10.0  # and one without content, which somebody is about to write, for so long
STALLED = 60.0  # a file that is being written is looked at when nothing was told of it for so long


class Look(NamedTuple):
    """A file as it was seen.

    Attributes:
        size: its bytes.
        mtime_ns: when it was last changed, nanoseconds since 1970.
        inode: which file of its disk it is: another one when a file was moved in its place.
        ctime_ns: when anything of it was changed, its attributes among them; nobody can set that back.
    """

    size: int
    mtime_ns: int
    inode: int = 0
    ctime_ns: int = 0


def look(path: str) -> Look | None:
    """How a file is now; None where there is none, or something else of that name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return Look(found.st_size, found.st_mtime_ns, found.st_ino, found.st_ctime_ns)


class Arrivals:
    """Files on their way, by name, each in one of three states: being written, closed, or only seen.

    `look_at` says how the file of a name is now.
    """

    def __init__(self, look_at: Callable[[str], Look | None]):
        self._look_at = look_at
        self._closed: dict[str, float] = {}  # when it was
        self._seen: dict[str, tuple[Look, float]] = {}  # how it looks, and since when
        self._written: dict[str, float] = {}  # when that was last told

    def __contains__(self, name: str) -> bool:
        return name in self._closed or name in self._seen or name in self._written

    def __bool__(self) -> bool:
        return bool(self._closed or self._seen or self._written)

    def closed(self, name: str) -> None:
        """It was closed by who wrote it, or moved here whole."""
        self.forget(name)
        self._closed[name] = time.monotonic()

    def written(self, name: str) -> None:
        """Somebody writes to it, so that its closing will be told."""
        if name in self._closed:  # or only its attributes were set, which is told in the same way
            self._closed[name] = time.monotonic()
            return
        self.forget(name)
        self._written[name] = time.monotonic()

    def seen(self, name: str, now: Look) -> None:
        """It is there, and what happens to it may not be told."""
        if name not in self:
            self._seen[name] = (now, time.monotonic())

    def forget(self, name: str) -> None:
        """It is gone, or taken."""
        for state in (self._closed, self._seen, self._written):
            state.pop(name, None)

    def wait(self) -> float:
        """Seconds until the next closed file can be taken; infinite when there is none."""
        return min(self._closed.values(), default=float("inf")) + GRACE - time.monotonic()

    def take(self) -> list[str]:
        """The files that are whole by now, in the order in which they became so; they are forgotten."""
        now = time.monotonic()
        whole = [name for name, at in self._closed.items() if now - at >= GRACE]
        whole += [name for name, (last, since) in list(self._seen.items()) if self._is_still(name, last, now - since)]
        for name in whole:
            self.forget(name)
        for name in [name for name, at in self._written.items() if now - at >= STALLED]:
            self._look_again(name)
        return whole

    def _is_still(self, name: str, last: Look, passed: float) -> bool:
        if passed < (STILL if last.size else STILL_EMPTY):
            return False
        return self._look_again(name) == last

    def _look_again(self, name: str) -> Look | None:
        self.forget(name)
        found = self._look_at(name)
        if found is not None:
            self._seen[name] = (found, time.monotonic())
        return found
