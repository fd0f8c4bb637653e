"""Judge pictures one after the other: decode ahead, judge in batches, write rows as they come, in constant memory."""

import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from uniad_lightning.detector import Detector, Picture
from uniad_lightning.errors import InputError, printable, say
from uniad_lightning.results.prediction_counts import Counts
from uniad_lightning.results.prediction_files import PredictionWriter
from uniad_lightning.results.prediction_parts import PartWriter
from uniad_lightning.results.prediction_rows import Row
from uniad_lightning.sources.items import Item, Source

_BYTES_AHEAD = 512 << 20  # of decoded pictures: with large ones, batches become smaller
_BATCHES_AHEAD = 2
_FAILURES_SHOWN = 10


class _Decoded(NamedTuple):
    """What became of reading a picture: `image` is None where `error` says why not."""

    image: np.ndarray | None
    error: str
    milliseconds: float


class _Reading(NamedTuple):
    place: int  # of the item in the source
    item: Item
    decoded: "Future[_Decoded]"


def predict_all(
    detector: Detector,
    source: Source,
    writer: PredictionWriter | PartWriter,
    *,
    batch_size: int,
    workers: int,
    product: str | None = None,
    show: bool = True,
) -> Counts:
    """Judge the pictures of `source` in batches of up to `batch_size`, and write a row for each, in their order.

    `workers` threads decode ahead. A picture that cannot be read is a row with its error. Where the source has nothing
    more at the moment, what is there is judged at once. `product` is as in `Detector.predict`. `show` is whether to
    show a bar, failures, and the counts at the end, also after an interrupt.

    Several processes, those of the `writer`, take one batch of the source each in turn: so a batch is the same one as
    in a single process, and with it every digit of its scores. The first returns the counts of all and shows the bar;
    the others show their failures, and return counts of nothing once they are done.

    Raises InputError when the results cannot be written or the source as a whole ends in an error; rows are kept.
    """
    processes = writer.processes
    with processes.agreed():
        for name, value in (("batch_size", batch_size), ("workers", workers)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name}={value}: expected a whole number from 1")
        detector.predict([], product=product)  # refuses a product without boundary before anything long starts
    loop = _Loop(detector, writer, batch_size=batch_size, product=product, show=show)
    counts = loop.counts
    began = time.perf_counter()
    try:
        try:
            _run(loop, source, workers)
        finally:
            counts.seconds = time.perf_counter() - began
        counts = writer.finish(counts, loop.listed.hexdigest())
    finally:
        if show and processes.first:
            say(counts.line(writer.rows_in))
    return counts


def _run(loop: "_Loop", source: Source, workers: int) -> None:
    with _quiet(), _bar(source, loop) as loop.bar, ThreadPoolExecutor(workers, "decode") as loop.pool:
        try:
            loop.run(source)
        finally:
            loop.pool.shutdown(wait=False, cancel_futures=True)
            close = getattr(source.items, "close", None)
            if close is not None:
                close()


class _Loop:
    """One pass over a source."""

    bar: tqdm
    pool: ThreadPoolExecutor

    def __init__(
        self,
        detector: Detector,
        writer: PredictionWriter | PartWriter,
        *,
        batch_size: int,
        product: str | None,
        show: bool,
    ):
        self.detector = detector
        self.writer = writer
        self.batch_size = batch_size
        self.product = product
        self.show = show
        self.processes = writer.processes
        self.counts = Counts()
        self.listed = blake2b(digest_size=16)  # of all names, also those of other processes
        self._waiting: deque[_Reading] = deque()
        self._warned = False

    def run(self, source: Source) -> None:
        own, ended = self._own(source.items), False
        while not ended or self._waiting:
            ended = ended or self._read_ahead(own)
            if self._waiting:
                rows = self._judge(self._next_batch())
                self.writer.add(rows)
                for row in rows:
                    self._count(row)
                self.bar.update(len(rows))

    def _own(self, items: Iterator[Item | None]) -> Iterator[tuple[int, Item] | None]:
        """What this process is to judge, with its place among all; None where nothing is there at the moment."""
        place = 0
        for item in items:
            if item is None:
                yield None
                continue
            self.listed.update(f"{item.name}\0".encode(errors="surrogateescape"))
            if self.processes.owns(place, self.batch_size):
                yield place, item
            place += 1

    def _read_ahead(self, own: Iterator[tuple[int, Item] | None]) -> bool:
        """Have pictures decoded until enough are, or none is there at the moment; returns whether it was the last."""
        while len(self._waiting) < _BATCHES_AHEAD * self.batch_size and self._decoded_bytes() < _BYTES_AHEAD:
            try:
                found = next(own)
            except StopIteration:
                return True
            if found is None:
                break
            place, item = found
            if self.writer.done(item):
                self.counts.skipped += 1
                if not self.bar.disable:
                    self.bar.initial += 1  # so that it does not count as speed
                    self.bar.n += 1
                continue
            self._waiting.append(_Reading(place, item, self.pool.submit(_decode, item)))
        return False

    def _decoded_bytes(self) -> int:
        done = [reading.decoded.result().image for reading in self._waiting if reading.decoded.done()]
        return sum(image.nbytes for image in done if image is not None)

    def _next_batch(self) -> Iterator[tuple[_Reading, _Decoded]]:
        """The pictures that wait, up to the size of a batch and what fits into the memory; at least one."""
        taken = bytes_taken = 0
        while self._waiting and taken < self.batch_size and (not taken or bytes_taken < _BYTES_AHEAD):
            reading = self._waiting.popleft()
            decoded = reading.decoded.result()
            taken += 1
            bytes_taken += 0 if decoded.image is None else decoded.image.nbytes
            yield reading, decoded

    def _judge(self, batch: Iterator[tuple[_Reading, _Decoded]]) -> list[Row]:
        """The rows of a batch, its pictures drawn."""
        readings = list(batch)
        images: list[Picture] = [decoded.image for _, decoded in readings if decoded.image is not None]
        began = time.perf_counter()
        inspections = deque(self.detector.predict(images, product=self.product) if images else [])
        share = 1000 * (time.perf_counter() - began) / max(len(images), 1)
        if len(inspections) != len(images):
            raise RuntimeError(f"the detector gave {len(inspections)} results for {len(images)} images")
        self._warn_uncalibrated(any(inspection.defective is None for inspection in inspections))
        rows = []
        for (_, item, _), decoded in readings:
            inspection = None if decoded.image is None else inspections.popleft()
            time_taken = decoded.milliseconds + (0.0 if inspection is None else share)
            # The pool drops its references once a row is there: full-size maps live for as many as are drawn at once.
            draw = self.pool.submit(self.writer.row, item, inspection, milliseconds=time_taken, error=decoded.error)
            rows.append(draw)
        return [{**row.result(), "place": reading.place} for row, (reading, _) in zip(rows, readings, strict=True)]

    def _count(self, row: Row) -> None:
        counts = self.counts
        counts.unfamiliar += row["familiar"] is False
        counts.good += row["decision"] == "good"
        counts.defective += row["decision"] == "defective"
        if not row["error"]:
            counts.judged += 1
            return
        counts.failed += 1
        if self.show and counts.failed <= _FAILURES_SHOWN:
            more = "; further ones are in the files only" if counts.failed == _FAILURES_SHOWN else ""
            tqdm.write(printable(f"uniad: {row['path']} failed: {row['error']}{more}"), file=sys.stderr)

    def _warn_uncalibrated(self, uncalibrated: bool) -> None:
        if uncalibrated and self.processes.first and not self._warned:
            self._warned = True
            tqdm.write(
                "uniad: warning: the detector has no boundary, so nothing is decided and the column decision stays "
                "empty; uniad calibrate ckpt_path=... sets one",
                file=sys.stderr,
            )


def _decode(item: Item) -> _Decoded:
    began = time.perf_counter() - item.spent
    image, error = None, ""
    try:
        image = item.read()
    except InputError as failure:
        error = str(failure)
    return _Decoded(image, error, 1000 * (time.perf_counter() - began))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what others warn of: a row says it, or it does not matter here."""
    with warnings.catch_warnings():
        for package in ("PIL", "watchdog"):
            warnings.filterwarnings("ignore", module=package)
        yield


@contextmanager
def _bar(source: Source, loop: _Loop) -> Iterator[tqdm]:
    """A progress bar of the first process; its total comes when the pictures are counted, beside the judging."""
    shown = loop.show and loop.processes.first
    among = f" (1 of {loop.processes.count} processes)" if loop.processes.count > 1 else ""
    pace = 0.2 if sys.stderr.isatty() else 30  # in a log file every refresh is a line
    with tqdm(desc=f"predict{among}", unit="image", disable=not shown, mininterval=pace, dynamic_ncols=True) as bar:
        if shown:
            threading.Thread(target=_count_ahead, args=(source, loop, bar), daemon=True).start()
        yield bar


def _count_ahead(source: Source, loop: _Loop, bar: tqdm) -> None:
    try:
        total = source.total()
    except InputError:  # the judging meets the same and says it
        return
    bar.total = None if total is None else loop.processes.share(total, loop.batch_size)
