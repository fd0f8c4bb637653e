"""Decode pictures ahead of their use, in their order, in as much memory as is set aside for it."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Condition
from typing import NamedTuple

import numpy as np

from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.prediction.sources.items import Item

MEMORY = 1 << 30  # bytes of pictures that are being decoded, wait, or are judged
MEMORY_A_WORKER = 1 << 28  # what each of many workers may take at least: a picture of 16 megapixels
_BATCHES_AHEAD = 2


class Decoded(NamedTuple):
    """What became of reading a picture: `image` is None where `error` says why not, `temporary` for now only."""

    image: np.ndarray | None
    error: str
    temporary: bool
    milliseconds: float

    @property
    def nbytes(self) -> int:
        """Bytes that the image takes."""
        return 0 if self.image is None else self.image.nbytes


class Reading(NamedTuple):
    """A picture that is being read."""

    place: int  # of the item in the source
    item: Item
    number: int  # of those that this process reads
    decoded: "Future[Decoded]"


class Room:
    """Bytes that several threads share. Each gets what it needs in the order of its number, and waits for it.

    Who needs more than there is gets it when nobody else has anything.
    """

    def __init__(self, size: int):
        self.size = size
        self._taken = 0
        self._asked: dict[int, int] = {}  # by those who wait or have it
        self._turn = 0
        self._closed = False
        self._changed = Condition()

    def take(self, number: int, needed: int) -> bool:
        """Wait for the turn of `number`, counted from 0, and for so many bytes; False when there will be none."""
        with self._changed:
            self._asked[number] = needed
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or (number == self._turn and self._fits(needed)))
            self._turn += 1
            self._taken += needed
            self._changed.notify_all()
            return not self._closed

    def asked(self, number: int) -> int:
        """What `number` needs; waits until it says so, which it does once."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._asked)
            return self._asked.pop(number)

    def give_back(self, released: int) -> None:
        """Bytes that are free again; negative ones are taken without waiting."""
        with self._changed:
            self._taken -= released
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, needed: int) -> bool:
        return not self._taken or self._taken + needed <= self.size


class Ahead:
    """Pictures that `workers` threads read ahead, and the batches of up to `batch_size` that they make.

    A batch is smaller where its pictures would take more than the memory. Which pictures are a batch follows from them
    and their order alone.
    """

    def __init__(self, *, batch_size: int, workers: int):
        self.batch_size = batch_size
        self._pool = ThreadPoolExecutor(workers, "decode")
        self.room = Room(max(MEMORY, workers * MEMORY_A_WORKER))
        self._waiting: deque[Reading] = deque()
        self._in_use = 0  # bytes of the last batch
        self._needed: int | None = None  # bytes of the next picture, when it did not fit into it
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """Whether enough is being read; less would make the batches depend on how fast that is."""
        held = sum(reading.item.held for reading in self._waiting)
        return len(self._waiting) >= _BATCHES_AHEAD * self.batch_size or held >= self.room.size

    def add(self, place: int, item: Item) -> None:
        """Have a picture read."""
        decoded = self._pool.submit(self._decode, self._count, item)
        self._waiting.append(Reading(place, item, self._count, decoded))
        self._count += 1

    def next_batch(self) -> list[tuple[Reading, Decoded]]:
        """The next pictures, at least one; `release` is to follow when nothing refers to them any more."""
        batch: list[tuple[Reading, Decoded]] = []
        taken = 0
        # What fits here, fits into the room as well, where only this batch is before it: so nobody waits for ever.
        while self._waiting and len(batch) < self.batch_size:
            if self._needed is None:
                self._needed = self.room.asked(self._waiting[0].number)
            if batch and taken + self._needed > self.room.size:
                break
            self._needed = None
            reading = self._waiting.popleft()
            decoded = reading.decoded.result()
            taken += decoded.nbytes
            batch.append((reading, decoded))
        self._in_use = taken
        return batch

    def release(self) -> None:
        """Let others have the memory of the last batch."""
        self.room.give_back(self._in_use)

    def close(self) -> None:
        """Read nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.room.close()

    def _decode(self, number: int, item: Item) -> Decoded:
        needed = item.needs()
        if not self.room.take(number, needed):
            return Decoded(None, "", temporary=True, milliseconds=0.0)
        began = time.perf_counter() - item.spent
        image, error, temporary = None, "", False
        try:
            image = item.read()
        except InputError as failure:
            error, temporary = str(failure), isinstance(failure, TemporaryError)
        finally:
            self.room.give_back(needed - (0 if image is None else image.nbytes))
        return Decoded(image, error, temporary, 1000 * (time.perf_counter() - began))
