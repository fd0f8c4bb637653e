"""Images of several requests inspected as one batch, in a thread of their own."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import Detector, ImageInput
from uniad_lightning.inspection.result import Inspection


class Job(NamedTuple):
    """A decoded image (H, W, 3) that waits for its inspection by `detector`."""

    image: np.ndarray
    detector: Detector
    category: str | None
    done: "asyncio.Future[Inspection]"


class Batcher:
    """Gathers images into batches of up to `max_batch`; a batch that is not full waits `max_wait` seconds at most.

    While a batch is inspected the next one gathers. `observe` is told the size of each batch.
    """

    def __init__(self, *, max_batch: int, max_wait: float, observe: Callable[[int], None]):
        self.max_batch = max_batch
        self.max_wait = max_wait
        self.observe = observe
        self._waiting: deque[Job] = deque()
        self._any, self._full = asyncio.Event(), asyncio.Event()
        self._engine = ThreadPoolExecutor(1, "inspect")  # one: batches in turn are faster than two at a time

    async def inspect(self, image: np.ndarray, detector: Detector, category: str | None) -> Inspection:
        """The inspection of one image. Raises InputError where its score is not finite."""
        job = Job(image, detector, category, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._any.set()
        if len(self._waiting) >= self.max_batch:
            self._full.set()
        return await job.done

    async def run(self) -> None:
        """Inspects what arrives, until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            _answer(await loop.run_in_executor(self._engine, _inspected, await self._next_batch()))

    def close(self) -> None:
        """Ends the thread once its batch is done."""
        self._engine.shutdown(wait=False)

    async def _next_batch(self) -> list[Job]:
        await self._any.wait()
        if self.max_wait > 0 and not self._full.is_set():
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._full.wait(), self.max_wait)
        batch = [self._waiting.popleft() for _ in range(min(self.max_batch, len(self._waiting)))]
        if not self._waiting:
            self._any.clear()
        if len(self._waiting) < self.max_batch:
            self._full.clear()
        self.observe(len(batch))
        return batch


def _answer(results: Sequence[tuple[Job, Inspection | Exception]]) -> None:
    """Not in the loop itself, which would hold the last image and its detector until the next one comes."""
    for job, result in results:
        if job.done.done():  # its request was cancelled
            continue
        if isinstance(result, BaseException):
            job.done.set_exception(result)
        else:
            job.done.set_result(result)


def _inspected(batch: Sequence[Job]) -> list[tuple[Job, Inspection | Exception]]:
    """The result or the error of each job; those of one detector and category are one batch for it."""
    alike: dict[tuple[int, str | None], list[Job]] = {}
    for job in batch:
        alike.setdefault((id(job.detector), job.category), []).append(job)
    return [pair for jobs in alike.values() for pair in zip(jobs, _results(jobs), strict=True)]


def _results(jobs: Sequence[Job]) -> list[Inspection | Exception]:
    first = jobs[0]
    try:
        return [*first.detector.predict(list[ImageInput]([job.image for job in jobs]), category=first.category)]
    except InputError as error:  # of one image: the others are inspected without it
        return [error] if len(jobs) == 1 else [result for job in jobs for result in _results([job])]
    except Exception as error:  # of the device, such as too little memory: each request is told
        return [error] * len(jobs)
