"""What the system reports of the files in a folder and below, as it happens."""

import time
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)

_EVENTS = (FileClosedEvent, FileMovedEvent, FileCreatedEvent, FileModifiedEvent, DirCreatedEvent, DirMovedEvent)
_MANY = 1000  # folders moved out, which the system still watches
_OVERLAP = 2.0  # seconds: watchdog holds a move back for half a second, in case its other half follows


class FolderEvents:
    """Events below `root`, between `start` and `stop`.

    A folder that is moved out of `root` stays watched, by watchdog and by the system, whose number of watches is
    limited. So after many of them all is observed anew; for a moment events then come twice, which is harmless.
    """

    def __init__(self, root: Path):
        self._root = root
        self._events: SimpleQueue[FileSystemEvent] = SimpleQueue()
        self._observer: Any = None
        self._before: Any = None  # the observer that is about to end
        self._renewed = 0.0
        self._left = 0

    def start(self) -> None:
        """Raises OSError where the system does not report events, such as at its limit of watches."""
        self._observer = _observe(self._root, self._events)

    def stop(self) -> None:
        """End the observing."""
        for observer in filter(None, (self._before, self._observer)):
            observer.stop()
            observer.join(5)
        self._before = self._observer = None

    def get(self, wait: float) -> FileSystemEvent | None:
        """The next event; None where there is none for `wait` seconds."""
        try:
            return self._events.get(timeout=wait) if wait else self._events.get_nowait()
        except Empty:
            return None

    def folder_left(self) -> None:
        """A folder was moved out of the root."""
        self._left += 1

    def renew(self) -> None:
        """Observe anew where it is time; to be called again and again."""
        if self._before is not None:
            if time.monotonic() - self._renewed >= _OVERLAP:
                self._before.stop()
                self._before.join(5)
                self._before = None
        elif self._observer is not None and self._left >= _MANY:
            self._left, self._renewed = 0, time.monotonic()
            try:
                renewed = _observe(self._root, self._events)
            except OSError:  # the old one goes on
                return
            self._before, self._observer = self._observer, renewed


class _Handler(FileSystemEventHandler):
    def __init__(self, events: "SimpleQueue[FileSystemEvent]"):
        self.events = events

    def dispatch(self, event: FileSystemEvent) -> None:
        self.events.put(event)


def _observe(root: Path, events: "SimpleQueue[FileSystemEvent]") -> Any:
    """A running observer that puts the events below `root` into `events`. Raises OSError."""
    from watchdog.observers.inotify import InotifyObserver  # can be imported on Linux only

    observer = InotifyObserver(generate_full_events=True)  # full: with files moved in from outside
    observer.schedule(_Handler(events), str(root), recursive=True, event_filter=list(_EVENTS))
    try:
        observer.start()
    except OSError:
        observer.stop()
        raise
    return observer
