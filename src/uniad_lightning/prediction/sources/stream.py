"""The frames of a camera or a stream as they come: always the newest one, and again after the stream was lost."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np

from uniad_lightning.data.images.image_file import refuse_above
from uniad_lightning.errors import InputError
from uniad_lightning.prediction.sources.address import Address
from uniad_lightning.prediction.sources.connection import Connection
from uniad_lightning.prediction.sources.idle_clock import IdleClock
from uniad_lightning.prediction.sources.items import Item, decoded_item
from uniad_lightning.progress_bar import print_beside

# All in seconds.
_WAIT = 0.05  # for a frame, before None is given
# Before connecting again; doubled each time, until a connection has lasted for the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_LEAVE = 2.0  # for the thread to end; one that waits for a silent stream is left behind


class _Frame(NamedTuple):
    number: int
    time_ns: int  # since 1970, when it was read
    image: np.ndarray


class Stream:
    """The frames number 0, `every`, 2 `every`, ... of a camera or a stream, of which the newest is given.

    A thread reads without pause and keeps one frame: one that is not taken before the next comes is `dropped`. Where
    the stream ends or is silent for 30 seconds, it is opened again, after a pause that grows to 30 seconds, until no
    frame has come for `idle` seconds; with `idle` None, until `stop` is called. Frames are counted from 0 in each call
    and across connections. Raises InputError where it cannot be opened at first, and for frames of more than
    `max_pixels`.
    """

    def __init__(self, address: Address, *, every: int, max_pixels: int, idle: float | None):
        self.address = address
        self.every = every
        self.idle = idle
        self.dropped = 0
        self._max_pixels = max_pixels
        self._newest: _Frame | None = None
        self._arrived = threading.Condition()
        self._read = 0  # frames so far
        self._asked_to_stop = False
        self._ended = threading.Event()
        self._failure: Exception | None = None
        # Opened again by `items`: what a connection has buffered while the detector is loaded is old.
        Connection(address).close()

    def stop(self) -> None:
        """End `items`. Takes no lock, so that a handler of signals can call it."""
        self._asked_to_stop = True

    def items(self) -> Iterator[Item | None]:
        """The frames as items named `camera:0#000123@20261129T125300.123Z`; None after each, and while none comes."""
        reader = threading.Thread(target=self._keep_reading, name="frames", daemon=True)
        reader.start()
        idle = IdleClock(self.idle)
        try:
            while not self._asked_to_stop:
                frame = self._take()
                if frame is not None:
                    yield self._item(frame)
                    idle.start_again()
                elif idle.is_over():
                    return
                yield None  # so that one frame is a batch: to wait for more would make it old
        finally:
            self._ended.set()
            reader.join(_LEAVE)

    def _take(self) -> _Frame | None:
        """The newest frame, None where none comes for a moment."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._newest is not None or self._failure is not None, _WAIT)
            frame, self._newest = self._newest, None
            if self._failure is not None:
                raise self._failure
            return frame

    def _item(self, frame: _Frame) -> Item:
        height, width = frame.image.shape[:2]
        refuse_above(self._max_pixels, (width, height), self.address.shown)
        seconds, rest = divmod(frame.time_ns, 1_000_000_000)
        at = datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y%m%dT%H%M%S")
        name = f"{self.address.shown}#{frame.number:06d}@{at}.{rest // 1_000_000:03d}Z"
        return decoded_item(name, frame.image, mtime_ns=frame.time_ns)

    def _keep_reading(self) -> None:
        try:
            self._connect_again_and_again()
        except Exception as error:  # it ends the command, which would wait for ever otherwise
            with self._arrived:
                self._failure = error
                self._arrived.notify_all()

    def _connect_again_and_again(self) -> None:
        pause, lost = _FIRST_PAUSE, 0.0  # when it was lost, 0 where it is not
        while not self._ended.is_set():
            before, began = self._read, time.monotonic()
            try:
                with closing(Connection(self.address)) as connection:
                    self._read_from(connection, lost)
            except InputError:  # still unreachable
                pass
            if self._ended.is_set():
                return
            if time.monotonic() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            if self._read > before or not lost:
                lost = time.monotonic()
                print_beside(
                    f"{self.address.shown}: lost after {self._read} frames; connecting again, at last every "
                    f"{_LONGEST_PAUSE:g} seconds"
                )
            self._ended.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _read_from(self, connection: Connection, lost: float) -> None:
        """Keep the newest frame of a connection until there is none any more."""
        while not self._ended.is_set() and connection.skip():
            if lost:
                print_beside(f"{self.address.shown}: is back after {time.monotonic() - lost:.0f} seconds")
                lost = 0.0
            number, time_ns = self._read, time.time_ns()
            self._read += 1
            image = None if number % self.every else connection.frame()
            if image is not None:
                with self._arrived:
                    self.dropped += self._newest is not None
                    self._newest = _Frame(number, time_ns, image)
                    self._arrived.notify_all()
