"""When a file that arrives in a folder is complete. Uses names and times only, opens no file."""

import os
import stat
import time
from collections.abc import Callable
from typing import NamedTuple

# All in seconds.
GRACE = 0.2  # after a file was closed: programs that copy set its time a moment later, and some reopen it
STILL = 1.0  # a file without a closing event is complete when it has not changed for so long
STILL_EMPTY = 10.0  # the same for an empty file, whose content may follow
SILENT = 0.5  # a name that was made and not written since is a link, unless the file is empty
STALLED = 60.0  # a file that is being written is checked when there was no event of it for so long


class FileState(NamedTuple):
    """A file at one moment.

    Attributes:
        size: its bytes.
        mtime_ns: when it was last changed, nanoseconds since 1970.
        inode: number of the file on its disk: another one when a file was moved in its place.
        ctime_ns: when its content or attributes were last changed; programs cannot set it.
    """

    size: int
    mtime_ns: int
    inode: int = 0
    ctime_ns: int = 0


def file_state(path: str) -> FileState | None:
    """The present state of a file; None where there is no regular file of that name."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns)


class Arrivals:
    """Files that arrive, by name: created, being written, closed, or present without an event.

    `state_of` gives the present state of the file of a name.
    """

    def __init__(self, state_of: Callable[[str], FileState | None]):
        self._state_of = state_of
        self._closed: dict[str, float] = {}  # time of the event
        self._present: dict[str, tuple[FileState, float]] = {}  # the state, and the time since when it is the same
        self._written: dict[str, float] = {}  # time of the last event
        self._created: dict[str, float] = {}  # time of the event

    def __contains__(self, name: str) -> bool:
        return any(name in state for state in (self._closed, self._present, self._written, self._created))

    def __bool__(self) -> bool:
        return bool(self._closed or self._present or self._written or self._created)

    def closed(self, name: str) -> None:
        """The file was closed by its writer, or moved here complete."""
        self.forget(name)
        self._closed[name] = time.monotonic()

    def created(self, name: str) -> None:
        """The name was made: of a new file, which is then written and closed, or of a link, where no event follows."""
        if name not in self:
            self._created[name] = time.monotonic()

    def written(self, name: str) -> None:
        """A program writes to the file, so that an event of its closing will follow."""
        if name in self._closed:  # or only its attributes were set, which is the same event
            self._closed[name] = time.monotonic()
            return
        self.forget(name)
        self._written[name] = time.monotonic()

    def present(self, name: str, now: FileState) -> None:
        """The file is there, and there may be no event of it."""
        if name not in self:
            self._present[name] = (now, time.monotonic())

    def forget(self, name: str) -> None:
        """The file is gone, or taken."""
        for state in (self._closed, self._present, self._written, self._created):
            state.pop(name, None)

    def wait(self) -> float:
        """Seconds until the next closed file can be taken; infinite when there is none."""
        return min(self._closed.values(), default=float("inf")) + GRACE - time.monotonic()

    def take(self) -> list[str]:
        """The files that are complete by now, in the order in which they became so; they are forgotten."""
        now = time.monotonic()
        complete = [name for name, at in self._closed.items() if now - at >= GRACE]
        complete += [
            name for name, (last, since) in list(self._present.items()) if self._is_still(name, last, now - since)
        ]
        for name in complete:
            self.forget(name)
        for name in [name for name, at in self._written.items() if now - at >= STALLED]:
            self._check_again(name)
        for name in [name for name, at in self._created.items() if now - at >= SILENT]:
            self._link_or_written(name)
        return complete

    def _link_or_written(self, name: str) -> None:
        """A name without another event: of a link where the file has content, or its writer has not begun."""
        now = self._check_again(name)
        if now is not None and not now.size:
            self.written(name)

    def _is_still(self, name: str, last: FileState, passed: float) -> bool:
        if passed < (STILL if last.size else STILL_EMPTY):
            return False
        return self._check_again(name) == last

    def _check_again(self, name: str) -> FileState | None:
        self.forget(name)
        now = self._state_of(name)
        if now is not None:
            self._present[name] = (now, time.monotonic())
        return now
