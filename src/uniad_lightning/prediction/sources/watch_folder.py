"""The pictures that come into a folder, each once and as soon as it is whole."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
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

from uniad_lightning.data.layouts.listing import is_picture
from uniad_lightning.errors import InputError, TemporaryError, complain
from uniad_lightning.prediction.sources.arrivals import GRACE, Arrivals, look
from uniad_lightning.prediction.sources.folder_walk import Found, walk
from uniad_lightning.prediction.sources.items import Item, broken, picture
from uniad_lightning.prediction.sources.passed_over import PassedOver
from uniad_lightning.prediction.sources.taken import Taken

# All in seconds.
_WAIT = 0.05  # for an event, before saying that nothing is there
_OLD = 2.0  # a file found at the start is whole when its last change is so long ago
_ROUND = 10.0  # between two looks at everything, for what is not told: changes by other machines, lost events
_ROUND_UNTOLD = 1.0  # the same where nothing is told
_SLICE = 1000  # files looked at in one go, so that a look at a million holds up no picture
_TOLD = (FileClosedEvent, FileMovedEvent, FileCreatedEvent, FileModifiedEvent, DirCreatedEvent, DirMovedEvent)


class Watch:
    """The pictures of `folder`: those that are there, then each that comes, until nothing came for `idle` seconds.

    The system tells when a file was closed or moved in, and that is when it is judged. Where it does not (a folder on
    another machine, another system than Linux), a file is taken for whole when its size and time stay the same for a
    second. A file that is replaced under its name is another picture, also one of the same size and time, unless an
    earlier call has judged it and it was written over in place. `without` is a folder to leave out. With `idle` None it
    ends only by an interrupt; otherwise `passed_over` is complete when it ends.
    """

    def __init__(self, folder: Path, *, without: Path | None, max_pixels: int, idle: float | None):
        self.folder = folder
        self.idle = idle
        self._max_pixels = max_pixels
        self._root = Path(os.path.realpath(folder))  # watching a link would tell of the link itself
        results = None if without is None else Path(os.path.realpath(without))
        self._without = results if results is not None and self._root in results.parents else None
        self.passed_over = PassedOver()
        self._taken = Taken()
        self._events: SimpleQueue[FileSystemEvent] = SimpleQueue()
        self._arrivals = Arrivals(lambda name: look(os.path.join(self._root, name)))
        self._new_folders: dict[str, float] = {}  # when made: files may have come before the system could tell
        self._rounds = self._go_round()
        self._pause = _ROUND_UNTOLD

    def items(self) -> Iterator[Item | None]:
        """The pictures; None each time none has come for a moment. Raises InputError when the folder goes away."""
        with self._told():
            yield from self._first()
            active = time.monotonic()
            while True:
                self._hear(max(0.0, min(_WAIT, self._arrivals.wait())))
                found = [*self._look_around(), *filter(None, map(self._item, self._arrivals.take()))]
                yield from found
                if not found:
                    yield None
                if found or self._arrivals or self._new_folders:
                    active = time.monotonic()
                elif self.idle is not None and time.monotonic() - active >= self.idle:
                    for _ in walk(self._root, without=self._without, passed_over=self.passed_over.note):
                        pass
                    return

    @contextmanager
    def _told(self) -> Iterator[None]:
        """While the system tells what happens in the folder, if it can."""
        observer = None
        if sys.platform == "linux":
            try:
                observer = _observe(self._root, self._events)
                self._pause = _ROUND
            except OSError as error:  # such as the limit of inotify watches
                complain(
                    f"warning: {self.folder}: the system does not tell of new files ({error.strerror}); looking "
                    "for them every second instead"
                )
        try:
            yield
        finally:
            if observer is not None:
                observer.stop()
                observer.join(5)

    def _first(self) -> Iterator[Item]:
        """What is there at the start, in order; a file that has just changed is left for later."""
        for found in walk(self._root, without=self._without):
            self._hear(0)
            now = look(str(found.path))
            if found.error is not None:
                yield from self._refused(found)
            elif now is None:
                yield from self._consider(found)
            elif found.name not in self._arrivals:
                if 0 <= time.time() - now.mtime_ns / 1e9 < _OLD:
                    self._arrivals.seen(found.name, now)
                else:
                    yield from filter(None, [self._item(found.name)])

    def _hear(self, wait: float) -> None:
        """Note all that was told since the last time; wait so many seconds for it to begin."""
        try:
            self._note(self._events.get(timeout=wait) if wait else self._events.get_nowait())
            while True:
                self._note(self._events.get_nowait())
        except Empty:
            return

    def _note(self, event: FileSystemEvent) -> None:
        kind = event.event_type
        name = self._name(event.dest_path if kind == "moved" else event.src_path)
        if event.is_directory:
            if name is not None:
                self._new_folders[name] = time.monotonic()
            return
        left = self._name(event.src_path) if kind == "moved" else None
        if left is not None:
            self._arrivals.forget(left)
        if name is None or not is_picture(Path(name)):
            return
        if kind in ("closed", "moved"):
            self._arrivals.closed(name)
        elif kind == "modified" or not any(name.startswith(f"{folder}/") for folder in self._new_folders):
            self._arrivals.written(name)

    def _name(self, path: Any) -> str | None:
        """Path below the folder; None for one outside, hidden or to be passed over."""
        whole = Path(os.fsdecode(path or ""))
        if not whole.is_relative_to(self._root) or (self._without and whole.is_relative_to(self._without)):
            return None
        parts = whole.relative_to(self._root).parts
        return None if any(part.startswith(".") for part in parts) else "/".join(parts)

    def _look_around(self) -> list[Item]:
        """Look into new folders, and at a part of everything when it is time; gives the folders that refuse."""
        now = time.monotonic()
        refused: list[Item] = []
        for name in [name for name, at in self._new_folders.items() if now - at >= GRACE]:
            del self._new_folders[name]
            for found in walk(self._root / name, without=self._without):
                refused += self._consider(found._replace(name="/".join(filter(None, [name, found.name]))))
        for found in next(self._rounds):
            refused += self._consider(found)
        return refused

    def _go_round(self) -> Iterator[list[Found]]:
        """Everything, again and again, in slices; an empty slice while it is not time."""
        while True:
            began = time.monotonic()
            everything = walk(self._root, without=self._without)
            while part := list(islice(everything, _SLICE)):
                yield part
            ended = time.monotonic()
            while time.monotonic() < ended + max(self._pause, 10 * (ended - began)):
                yield []

    def _consider(self, found: Found) -> list[Item]:
        if found.error is not None:
            return self._refused(found)
        now = look(str(found.path))
        if now is None:  # gone again; or a pipe or a link to nowhere, of which nothing will be told
            item = self._item(found.name)
            return [] if item is None else [item]
        if not self._taken.as_it_is(found.name, now):
            self._arrivals.seen(found.name, now)
        return []

    def _refused(self, found: Found) -> list[Item]:
        """What a folder that cannot be listed means: an item that says so, once, or nothing when it has just gone."""
        error = found.error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            if found.path == self._root:
                raise InputError(f"input={self.folder}: the watched folder has gone; what is judged is kept") from None
            return []
        item = broken(found.name or ".", found.message)
        return [item] if self._taken.once(item.key) else []

    def _item(self, name: str) -> Item | None:
        """The item of a whole file; None where it has gone again, or is taken already."""
        path = self._root / name
        item = picture(name, path, self._max_pixels)
        now = look(str(path))
        if now is None:
            return item if os.path.lexists(path) and self._taken.once(item.key) else None
        version = self._taken.version(name, now, path)
        if version is None:
            return None

        def read(**settings: int) -> np.ndarray:
            image = item.read(**settings)
            after = look(str(path))
            if after is not None and after[:3] != now[:3]:
                raise TemporaryError(f"{path}: changed while it was read; it is judged again when it is whole")
            self._taken.was_read(name, now, path)
            return image

        return item._replace(read=read, version=version)


class _Handler(FileSystemEventHandler):
    def __init__(self, events: "SimpleQueue[FileSystemEvent]"):
        self.events = events

    def dispatch(self, event: FileSystemEvent) -> None:
        self.events.put(event)


def _observe(root: Path, events: "SimpleQueue[FileSystemEvent]") -> Any:
    """A running observer that puts what happens below `root` into `events`. Raises OSError when it cannot."""
    from watchdog.observers.inotify import InotifyObserver  # can be imported on Linux only

    observer = InotifyObserver(generate_full_events=True)  # full: also files moved in from outside
    observer.schedule(_Handler(events), str(root), recursive=True, event_filter=list(_TOLD))
    try:
        observer.start()
    except OSError:
        observer.stop()
        raise
    return observer
