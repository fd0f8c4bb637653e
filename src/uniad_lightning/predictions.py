"""Judge pictures one after the other: decode ahead, judge in batches, write rows as they come, in constant memory."""

import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from uniad_lightning.detector import Detector, Picture
from uniad_lightning.errors import InputError
from uniad_lightning.results.prediction_files import PredictionWriter, Row
from uniad_lightning.sources.items import Item, Source

_BYTES_AHEAD = 512 << 20  # of decoded pictures: with large ones, batches become smaller
_BATCHES_AHEAD = 2
_FAILURES_SHOWN = 10


@dataclass
class Counts:
    """How many pictures were what.

    Attributes:
        good: without defect.
        defective: with one; neither of both for a detector that is not calibrated.
        unfamiliar: looked like no product of the training, good or defective.
        failed: could not be judged; their rows say why.
        judged: all that this call judged, failed ones not among them.
        skipped: those an earlier call had judged.
        seconds: how long it took.
    """

    good: int = 0
    defective: int = 0
    unfamiliar: int = 0
    failed: int = 0
    judged: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def line(self, folder: Path) -> str:
        """The summary for the terminal."""
        decided = f"{self.good} good, {self.defective} defective" if self.good or self.defective else "not decided"
        parts = [f"{self.judged + self.failed} images: {decided}"]
        parts += [f"{self.unfamiliar} unfamiliar"] if self.unfamiliar else []
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"{self.skipped} judged before"] if self.skipped else []
        return f"{', '.join(parts)}; {self.judged / max(self.seconds, 1e-9):.1f} images/s; {folder}"


class _Decoded(NamedTuple):
    """What became of reading a picture: `image` is None where `error` says why not."""

    image: np.ndarray | None
    error: str
    milliseconds: float


class _Reading(NamedTuple):
    item: Item
    decoded: "Future[_Decoded]"


def predict_all(
    detector: Detector,
    source: Source,
    writer: PredictionWriter,
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

    Raises InputError when the results cannot be written or the source as a whole ends in an error; rows are kept.
    """
    for name, value in (("batch_size", batch_size), ("workers", workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value}: expected a whole number from 1")
    detector.predict([], product=product)  # refuses a product without boundary before anything long starts
    loop = _Loop(detector, writer, batch_size=batch_size, product=product)
    began = time.perf_counter()
    try:
        with _quiet(), _bar(source, show) as loop.bar, ThreadPoolExecutor(workers, "decode") as loop.pool:
            try:
                loop.run(source)
            finally:
                loop.pool.shutdown(wait=False, cancel_futures=True)
                close = getattr(source.items, "close", None)
                if close is not None:
                    close()
    finally:
        loop.counts.seconds = time.perf_counter() - began
        if show:
            print(loop.counts.line(writer.folder))
    return loop.counts


class _Loop:
    """One pass over a source."""

    bar: tqdm
    pool: ThreadPoolExecutor

    def __init__(self, detector: Detector, writer: PredictionWriter, *, batch_size: int, product: str | None):
        self.detector = detector
        self.writer = writer
        self.batch_size = batch_size
        self.product = product
        self.counts = Counts()
        self._waiting: deque[_Reading] = deque()
        self._warned = False

    def run(self, source: Source) -> None:
        ended = False
        while not ended or self._waiting:
            ended = ended or self._read_ahead(source.items)
            if self._waiting:
                rows = self._judge(self._next_batch())
                self.writer.add(rows)
                for row in rows:
                    self._count(row)
                self.bar.update(len(rows))

    def _read_ahead(self, items: Iterator[Item | None]) -> bool:
        """Have pictures decoded until enough are, or none is there at the moment; returns whether it was the last."""
        while len(self._waiting) < _BATCHES_AHEAD * self.batch_size and self._decoded_bytes() < _BYTES_AHEAD:
            try:
                item = next(items)
            except StopIteration:
                return True
            if item is None:
                break
            if self.writer.done(item):
                self.counts.skipped += 1
                if not self.bar.disable:
                    self.bar.initial += 1  # so that it does not count as speed
                    self.bar.n += 1
                continue
            self._waiting.append(_Reading(item, self.pool.submit(_decode, item)))
        return False

    def _decoded_bytes(self) -> int:
        done = [reading.decoded.result().image for reading in self._waiting if reading.decoded.done()]
        return sum(image.nbytes for image in done if image is not None)

    def _next_batch(self) -> Iterator[tuple[Item, _Decoded]]:
        """The pictures that wait, up to the size of a batch and what fits into the memory; at least one."""
        taken = bytes_taken = 0
        while self._waiting and taken < self.batch_size and (not taken or bytes_taken < _BYTES_AHEAD):
            item, reading = self._waiting.popleft()
            decoded = reading.result()
            taken += 1
            bytes_taken += 0 if decoded.image is None else decoded.image.nbytes
            yield item, decoded

    def _judge(self, batch: Iterator[tuple[Item, _Decoded]]) -> list[Row]:
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
        for item, decoded in readings:
            inspection = None if decoded.image is None else inspections.popleft()
            time_taken = decoded.milliseconds + (0.0 if inspection is None else share)
            # The pool drops its references once a row is there: full-size maps live for as many as are drawn at once.
            draw = self.pool.submit(self.writer.row, item, inspection, milliseconds=time_taken, error=decoded.error)
            rows.append(draw)
        return [row.result() for row in rows]

    def _count(self, row: Row) -> None:
        counts = self.counts
        counts.unfamiliar += row["familiar"] is False
        counts.good += row["decision"] == "good"
        counts.defective += row["decision"] == "defective"
        if not row["error"]:
            counts.judged += 1
            return
        counts.failed += 1
        if not self.bar.disable and counts.failed <= _FAILURES_SHOWN:
            more = "; further ones are in the files only" if counts.failed == _FAILURES_SHOWN else ""
            tqdm.write(f"uniad: {row['path']} failed: {row['error']}{more}", file=sys.stderr)

    def _warn_uncalibrated(self, uncalibrated: bool) -> None:
        if uncalibrated and not self._warned:
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
def _bar(source: Source, show: bool) -> Iterator[tqdm]:
    """A progress bar; its total comes when the pictures are counted, which happens beside the judging."""
    pace = 0.2 if sys.stderr.isatty() else 30  # in a log file every refresh is a line
    with tqdm(desc="predict", unit="image", disable=not show, mininterval=pace, dynamic_ncols=True) as bar:
        if show:
            threading.Thread(target=_count_ahead, args=(source.total, bar), daemon=True).start()
        yield bar


def _count_ahead(total: Callable[[], int | None], bar: tqdm) -> None:
    try:
        bar.total = total()
    except InputError:  # the judging meets the same and says it
        return
