"""Decode images ahead of their use, in their order, within a fixed amount of memory."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Condition
from typing import NamedTuple

import numpy as np

from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.prediction.sources.items import Item

MEMORY = 1 << 30  # bytes of images that are being decoded, wait, or are inspected
MEMORY_PER_WORKER = 1 << 28  # what each of many workers may take at least: an image of 16 megapixels
_BATCHES_AHEAD = 2


class Decoded(NamedTuple):
    """The outcome of reading an image: `image` is None where there is an `error`, `temporary` if that may pass."""

    image: np.ndarray | None
    error: str
    temporary: bool
    milliseconds: float

    @property
    def nbytes(self) -> int:
        """Bytes that the image takes."""
        return 0 if self.image is None else self.image.nbytes


class Reading(NamedTuple):
    """An image that is being read."""

    place: int  # of the item in the source
    item: Item
    number: int  # of those that this process reads
    decoded: "Future[Decoded]"


class MemoryBudget:
    """Bytes that several threads share; each waits for what it needs, in the order of its number.

    A need above the whole budget is met when nobody else holds anything.
    """

    def __init__(self, size: int):
        self.size = size
        self._taken = 0
        self._needs: dict[int, int] = {}  # of those that wait or have it
        self._turn = 0
        self._closed = False
        self._changed = Condition()

    def take(self, number: int, needed: int) -> bool:
        """Wait for the turn of `number`, counted from 0, and for `needed` bytes; False once the budget is closed."""
        with self._changed:
            self._needs[number] = needed
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or (number == self._turn and self._fits(needed)))
            self._turn += 1
            self._taken += needed
            self._changed.notify_all()
            return not self._closed

    def need_of(self, number: int) -> int:
        """What `number` needs; waits until `take` has it. To be called once per number."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._needs)
            return self._needs.pop(number)

    def release(self, released: int) -> None:
        """Give bytes back; negative ones are taken without waiting."""
        with self._changed:
            self._taken -= released
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _fits(self, needed: int) -> bool:
        return not self._taken or self._taken + needed <= self.size


class Prefetcher:
    """Images that `workers` threads decode ahead, and the batches of up to `batch_size` that they make.

    A batch is smaller where its images would exceed the memory. The batches depend on the images and their order alone.
    """

    def __init__(self, *, batch_size: int, workers: int):
        self.batch_size = batch_size
        self._pool = ThreadPoolExecutor(workers, "decode")
        self.memory = MemoryBudget(max(MEMORY, workers * MEMORY_PER_WORKER))
        self._waiting: deque[Reading] = deque()
        self._needed: int | None = None  # bytes of the next image, when it did not fit into that batch
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def full(self) -> bool:
        """Whether enough is being read; with less the batches would depend on the speed of reading."""
        held = sum(reading.item.held for reading in self._waiting)
        return len(self._waiting) >= _BATCHES_AHEAD * self.batch_size or held >= self.memory.size

    @property
    def ready(self) -> bool:
        """Whether the images of the next batch are read, so that `next_batch` waits for nothing."""
        return all(reading.decoded.done() for reading in islice(self._waiting, self.batch_size))

    def add(self, place: int, item: Item) -> None:
        """Start to read an image."""
        decoded = self._pool.submit(self._decode, self._count, item)
        self._waiting.append(Reading(place, item, self._count, decoded))
        self._count += 1

    def next_batch(self) -> list[tuple[Reading, Decoded]]:
        """The next images, at least one; call `release` with their bytes when nothing refers to them any more."""
        batch: list[tuple[Reading, Decoded]] = []
        taken = 0
        # No deadlock: what fits here also fits into the budget, where only this batch is before it, or all are read.
        while self._waiting and len(batch) < self.batch_size:
            if self._needed is None:
                self._needed = self.memory.need_of(self._waiting[0].number)
            if batch and taken + self._needed > self.memory.size:
                break
            self._needed = None
            reading = self._waiting.popleft()
            decoded = reading.decoded.result()
            taken += decoded.nbytes
            batch.append((reading, decoded))
        return batch

    def release(self, nbytes: int) -> None:
        """Free the memory of a batch."""
        self.memory.release(nbytes)

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self.memory.close()

    def _decode(self, number: int, item: Item) -> Decoded:
        needed = item.needs()
        if not self.memory.take(number, needed):
            return Decoded(None, "", temporary=True, milliseconds=0.0)
        began = time.perf_counter() - item.spent
        image, error, temporary = None, "", False
        try:
            image = item.read()
        except InputError as failure:
            error, temporary = str(failure), isinstance(failure, TemporaryError)
        finally:
            self.memory.release(needed - (0 if image is None else image.nbytes))
        return Decoded(image, error, temporary, 1000 * (time.perf_counter() - began))
