"""Judge pictures one after the other: decode ahead, judge in batches, write rows as they come, in constant memory."""

import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
from tqdm import tqdm

from uniad_lightning.errors import InputError, complain, printable, say
from uniad_lightning.inspection.detector import Detector, Picture
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.decoding import MEMORY, Ahead, Decoded, Reading
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.merging import PartWriter
from uniad_lightning.prediction.rows import Row
from uniad_lightning.prediction.sources.items import Item, Source

_DRAWN = 32  # bytes of a pixel at the peak of drawing its overlay
_FAILURES_SHOWN = 10


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
    loop = _Loop(detector, writer, batch_size=batch_size, workers=workers, product=product, show=show)
    counts = loop.counts
    began = time.perf_counter()
    try:
        try:
            _run(loop, source)
        finally:
            counts.seconds = time.perf_counter() - began
        counts = writer.finish(counts, loop.listed.hexdigest())
        if processes.first and source.passed_over is not None:
            counts.passed_over = sum(source.passed_over.pictures.values())
    finally:
        if show and processes.first:
            say(counts.line(writer.rows_in))
    if show and processes.first and source.passed_over is not None and source.passed_over.counts:
        complain(f"warning: {source.passed_over.line()}")
    return counts


def _run(loop: "_Loop", source: Source) -> None:
    with _quiet(), _bar(source, loop) as loop.bar:
        try:
            loop.run(source)
        finally:
            loop.ahead.close()
            loop.drawing.shutdown(wait=False, cancel_futures=True)
            close = getattr(source.items, "close", None)
            if close is not None:
                close()


class _Loop:
    """One pass over a source."""

    bar: tqdm

    def __init__(
        self,
        detector: Detector,
        writer: PredictionWriter | PartWriter,
        *,
        batch_size: int,
        workers: int,
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
        self.ahead = Ahead(batch_size=batch_size, workers=workers)
        # Threads of its own: those that decode may be waiting for the memory of what is to be drawn.
        self.drawing = ThreadPoolExecutor(workers, "draw")
        self._warned = False

    def run(self, source: Source) -> None:
        own, ended = self._own(source.items), False
        while not ended or self.ahead:
            ended = ended or self._read_ahead(own)
            if self.ahead:
                rows = self._judge(self.ahead.next_batch())
                self.ahead.release()
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
        while not self.ahead.full:
            try:
                found = next(own)
            except StopIteration:
                return True
            if found is None:
                break
            place, item = found
            if self.writer.done(item) and not item.version:
                self.counts.skipped += 1
                self.counts.failed_before += self.writer.failed(item)
                if not self.bar.disable:
                    self.bar.initial += 1  # so that it does not count as speed
                    self.bar.n += 1
                continue
            self.ahead.add(place, item)
        return False

    def _judge(self, batch: list[tuple[Reading, Decoded]]) -> list[Row]:
        """The rows of a batch, its pictures drawn."""
        images = [decoded.image for _, decoded in batch if decoded.image is not None]
        began = time.perf_counter()
        inspections = deque(self._inspect(images))
        share = 1000 * (time.perf_counter() - began) / max(len(images), 1)
        if len(inspections) != len(images):
            raise RuntimeError(f"the detector gave {len(inspections)} results for {len(images)} images")
        largest = max((image.shape[0] * image.shape[1] for image in images), default=1)
        at_once = max(MEMORY // (_DRAWN * largest), 1)
        rows: list[Future[Row]] = []
        for reading, decoded in batch:
            inspection = None if decoded.image is None else inspections.popleft()
            time_taken = decoded.milliseconds + (0.0 if inspection is None else share)
            error = decoded.error
            if isinstance(inspection, InputError):
                inspection, error = None, str(inspection)
            if len(rows) >= at_once:
                rows[-at_once].result()
            # The pool drops its references once a row is there: full-size maps live for as many as are drawn at once.
            draw = self.drawing.submit(
                self.writer.row, reading.item, inspection,
                milliseconds=time_taken, error=error, temporary=decoded.temporary,
            )  # fmt: skip
            rows.append(draw)
        return [{**row.result(), "place": reading.place} for row, (reading, _) in zip(rows, batch, strict=True)]

    def _inspect(self, images: Sequence[np.ndarray]) -> list[Inspection | InputError]:
        """What the detector says about each picture, or why it says nothing: one by one where it refuses them all."""
        try:
            found = self.detector.predict(list[Picture](images), product=self.product) if images else []
        except InputError as error:
            return [error] if len(images) == 1 else [one for image in images for one in self._inspect([image])]
        self._warn_uncalibrated(any(inspection.defective is None for inspection in found))
        return [*found]

    def _count(self, row: Row) -> None:
        counts = self.counts
        counts.unfamiliar += row["familiar"] is False
        counts.good += row["decision"] == "good"
        counts.defective += row["decision"] == "defective"
        if not row["error"]:
            counts.judged += 1
            return
        counts.failed += 1
        counts.temporary += row["temporary"]
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
