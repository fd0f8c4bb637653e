"""The images that arrive in a folder, each once and as soon as its file is complete."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from watchdog.events import FileSystemEvent

from uniad_lightning.data.layouts.listing import is_image
from uniad_lightning.errors import InputError, TemporaryError, print_stderr
from uniad_lightning.prediction.sources.arrivals import GRACE, Arrivals, file_state
from uniad_lightning.prediction.sources.folder_events import FolderEvents
from uniad_lightning.prediction.sources.folder_walk import Found, walk
from uniad_lightning.prediction.sources.idle_clock import IdleClock
from uniad_lightning.prediction.sources.items import Item, broken_item, image_item
from uniad_lightning.prediction.sources.passed_over import PassedOver
from uniad_lightning.prediction.sources.taken import Taken

# All in seconds.
_WAIT = 0.05  # for an event, before None is given
_OLD = 2.0  # a file that is there at the start is complete when its last change is so long ago
_SCAN = 10.0  # between two scans of the folder, for changes without an event: by other machines, lost events
_SCAN_WITHOUT_EVENTS = 1.0  # the same where there are no events
_SLICE = 1000  # files scanned at once, so that a scan of a million does not delay an image


class Watch:
    """The images of `folder`: those that are there, then each that arrives, until none came for `idle` seconds.

    An image is taken when the system reports that its file was closed or moved in. Without such events (a folder on
    another machine, another system than Linux), a file is taken as complete when its size and time stay the same for a
    second. A replaced file is another image, also one of the same size and time, unless it was overwritten in place and
    an earlier call has its row. `without` is a folder to leave out. With `idle` None only an interrupt ends the
    watching; otherwise `passed_over` is complete at the end.
    """

    def __init__(self, folder: Path, *, without: Path | None, max_pixels: int, idle: float | None):
        self.folder = folder
        self.idle = idle
        self._max_pixels = max_pixels
        self._root = Path(os.path.realpath(folder))  # watching a link would report events of the link itself
        results = None if without is None else Path(os.path.realpath(without))
        self._without = results if results is not None and self._root in results.parents else None
        self.passed_over = PassedOver()
        self._taken = Taken()
        self._events = FolderEvents(self._root)
        self._arrivals = Arrivals(lambda name: file_state(os.path.join(self._root, name)))
        self._told: set[str] = set()  # files that arrived by an event and are not taken yet
        self._new_folders: dict[str, float] = {}  # time made: files may have come before there were events
        self._scans = self._scan_again()
        self._pause = _SCAN_WITHOUT_EVENTS

    def items(self) -> Iterator[Item | None]:
        """The images; None each time none has come for a moment. Raises InputError when the folder is removed."""
        with self._observed():
            yield from self._existing()
            idle = IdleClock(self.idle)
            while True:
                self._receive(max(0.0, min(_WAIT, self._arrivals.wait())))
                self._events.renew()
                items = [*self._scan(), *filter(None, map(self._item, self._arrivals.take()))]
                yield from items
                if not items:
                    yield None
                if items or self._arrivals or self._new_folders:
                    idle.start_again()
                elif idle.is_over():
                    for _ in walk(self._root, without=self._without, passed_over=self.passed_over.note):
                        pass
                    return

    @contextmanager
    def _observed(self) -> Iterator[None]:
        """While the system reports events in the folder, where it can."""
        if sys.platform == "linux":
            try:
                self._events.start()
                self._pause = _SCAN
            except OSError as error:  # such as the limit of inotify watches
                print_stderr(
                    f"warning: {self.folder}: the system does not report new files ({error.strerror}); scanning "
                    "the folder every second instead"
                )
        try:
            yield
        finally:
            self._events.stop()

    def _existing(self) -> Iterator[Item]:
        """The images that are there at the start, in order; a file that has just changed is left for later."""
        for found in walk(self._root, without=self._without):
            self._receive(0)
            now = file_state(str(found.path))
            if found.error is not None:
                yield from self._failed(found)
            elif now is None:
                yield from self._check(found)
            elif found.name not in self._arrivals:
                if time.time() - now.mtime_ns / 1e9 < _OLD:  # or in the future, by the clock of another machine
                    self._arrivals.present(found.name, now)
                else:
                    yield from filter(None, [self._item(found.name)])

    def _receive(self, wait: float) -> None:
        """Handle all events since the last call; wait up to `wait` seconds for the first."""
        event = self._events.get(wait)
        while event is not None:
            self._handle(event)
            event = self._events.get(0)

    def _handle(self, event: FileSystemEvent) -> None:
        kind = event.event_type
        name = self._name(event.dest_path if kind == "moved" else event.src_path)
        left = self._name(event.src_path) if kind == "moved" else None
        if event.is_directory:
            if name is not None:
                self._new_folders[name] = time.monotonic()
            elif left is not None:
                self._events.folder_left()
            return
        if left is not None:
            self._arrivals.forget(left)
            self._told.discard(left)
        if name is None or not is_image(Path(name)):
            return
        if kind in ("closed", "moved"):
            self._told.add(name)
            self._arrivals.closed(name)
        elif kind == "modified":
            self._arrivals.written(name)
        elif not any(name.startswith(f"{folder}/") for folder in self._new_folders):
            self._arrivals.created(name)

    def _name(self, path: Any) -> str | None:
        """Path below the folder; None for one outside, hidden or in `without`."""
        absolute = Path(os.fsdecode(path or ""))
        if not absolute.is_relative_to(self._root) or (self._without and absolute.is_relative_to(self._without)):
            return None
        parts = absolute.relative_to(self._root).parts
        return None if any(part.startswith(".") for part in parts) else "/".join(parts)

    def _scan(self) -> list[Item]:
        """Scan new folders, and a slice of the whole folder when it is time; returns items of errors."""
        now = time.monotonic()
        failed: list[Item] = []
        for name in [name for name, at in self._new_folders.items() if now - at >= GRACE]:
            del self._new_folders[name]
            for found in walk(self._root / name, without=self._without):
                failed += self._check(found._replace(name="/".join(filter(None, [name, found.name]))))
        for found in next(self._scans):
            failed += self._check(found)
        return failed

    def _scan_again(self) -> Iterator[list[Found]]:
        """The whole folder, again and again, in slices; an empty slice while it is not time."""
        while True:
            began = time.monotonic()
            entries = walk(self._root, without=self._without)
            while part := list(islice(entries, _SLICE)):
                yield part
            ended = time.monotonic()
            while time.monotonic() < ended + max(self._pause, 10 * (ended - began)):
                yield []

    def _check(self, found: Found) -> list[Item]:
        if found.error is not None:
            return self._failed(found)
        now = file_state(str(found.path))
        if now is None:  # gone again; or a pipe or a link to nowhere, which has no events
            item = self._item(found.name)
            return [] if item is None else [item]
        if not self._taken.is_known(found.name, now):
            self._arrivals.present(found.name, now)
        return []

    def _failed(self, found: Found) -> list[Item]:
        """The item of an entry that cannot be accessed, once; none for one that was just removed."""
        error = found.error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            if found.path == self._root:
                raise InputError(
                    f"input={self.folder}: the watched folder was removed; finished rows are kept"
                ) from None
            return []
        item = broken_item(found.name or ".", found.message)
        return [item] if self._taken.once(item.key) else []

    def _item(self, name: str) -> Item | None:
        """The item of a complete file; None where it is gone again, or was taken before."""
        path = self._root / name
        item = image_item(name, path, self._max_pixels)
        now = file_state(str(path))
        told = name in self._told
        self._told.discard(name)
        if now is None:
            return item if os.path.lexists(path) and self._taken.once(item.key) else None
        version = self._taken.version(name, now, path, told=told)
        if version is None:
            return None

        def read(**settings: Any) -> np.ndarray:
            image = item.read(**settings)
            after = file_state(str(path))
            if after is not None and after[:3] != now[:3]:
                raise TemporaryError(f"{path}: changed while it was read; it is inspected again when it is complete")
            self._taken.was_read(name, now, path)
            return image

        return item._replace(read=read, version=version)
