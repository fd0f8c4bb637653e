"""Inspect a stream of images: decode ahead, inspect in batches, write rows as they come, in constant memory."""

import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from uniad_lightning.errors import InputError, print_stderr, print_stdout, printable
from uniad_lightning.inspection.detector import Detector, ImageInput
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.decoding import MEMORY, Decoded, Prefetcher, Reading
from uniad_lightning.prediction.files import PredictionWriter, files_in
from uniad_lightning.prediction.merging import PartWriter
from uniad_lightning.prediction.progress import counted_bar, without_warnings
from uniad_lightning.prediction.rows import Row
from uniad_lightning.prediction.sources.items import Item, Source
from uniad_lightning.prediction.stopping import interrupt_held_back

_DRAWN = 32  # bytes of a pixel at the peak of drawing its overlay
_FAILURES_SHOWN = 10


def predict_all(
    detector: Detector,
    source: Source,
    writer: PredictionWriter | PartWriter,
    *,
    batch_size: int,
    workers: int,
    category: str | None = None,
    show: bool = True,
    each: bool = False,
) -> Counts:
    """Inspect the images of `source` in batches of up to `batch_size` and write a row for each, in their order.

    `workers` threads decode ahead. An unreadable image is a row with its error. Where the source has no further image
    at the moment, a smaller batch is inspected at once. `show` prints a progress bar, failures, and, also after an
    interrupt, the counts; with `each` a line for each image in place of the bar. The processes of the `writer` take one
    batch each in turn, so that every digit is that of a single process; the first returns all counts, others zeros.

    Raises InputError when the results cannot be written or the source ends in an error; rows are kept.
    """
    with writer.processes.agreed():
        _check_numbers(batch_size=batch_size, workers=workers)
        detector.predict([], category=category)  # refuses a category without boundary before anything long starts
    loop = _Loop(detector, writer, batch_size=batch_size, workers=workers, category=category, show=show, each=each)
    passed_over = source.passed_over if writer.processes.first else None
    try:
        _run(loop, source)
        loop.counts = writer.finish(loop.counts, loop.listed.hexdigest())
        if passed_over is not None:
            loop.counts.passed_over = sum(passed_over.images.values())
    finally:
        loop.counts.dropped = source.dropped()
        if show and writer.processes.first:
            print_stdout(f"{loop.counts.summary(writer.rows_in)}{files_in(writer.rows_in)}")
    if show and passed_over is not None and passed_over.counts:
        print_stderr(f"warning: {passed_over.summary()}")
    return loop.counts


def _check_numbers(**settings: object) -> None:
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name}={value}: expected a whole number from 1")


def _run(loop: "_Loop", source: Source) -> None:
    began = time.perf_counter()
    try:
        with (
            without_warnings(),
            counted_bar(source, loop.processes, loop.batch_size, shown=loop.show and not loop.each) as loop.bar,
        ):
            try:
                loop.run(source)
            finally:
                loop.ahead.close()
                loop.drawing.shutdown(wait=False, cancel_futures=True)
                close = getattr(source.items, "close", None)
                if close is not None:
                    close()
    finally:
        loop.counts.seconds = time.perf_counter() - began


class _Drawing(NamedTuple):
    """A row that is written once its overlay is drawn."""

    place: int  # of the item in the source
    row: Future[Row]
    nbytes: int  # of its image


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
        category: str | None,
        show: bool,
        each: bool,
    ):
        self.detector = detector
        self.writer = writer
        self.batch_size = batch_size
        self.category = category
        self.show, self.each = show, each
        self.processes = writer.processes
        self.counts = Counts()
        self.listed = blake2b(digest_size=16)  # of all names in the input, also those of other processes
        self.ahead = Prefetcher(batch_size=batch_size, workers=workers)
        # Its own threads: those that decode may be waiting for the memory of images that are to be drawn.
        self.drawing = ThreadPoolExecutor(workers, "draw")
        self.drawn: deque[list[_Drawing]] = deque()  # batches that are drawn while the next one is inspected
        self._warned = False
        self._failures_shown = 0

    def run(self, source: Source) -> None:
        own, ended = self._own(source.items), False
        try:
            while not ended or self.ahead:
                ended = ended or self._read_ahead(own)
                if not self.ahead.ready:
                    self._write(keep=0)  # its memory may be what is waited for
                if self.ahead:
                    self.drawn.append(self._inspect_batch(self.ahead.next_batch()))
                self._write(keep=1 if self.ahead else 0)  # the next image may be long in coming
        except BaseException:  # also an interrupt
            self._write(keep=0)
            raise

    def _write(self, *, keep: int) -> None:
        """Write and count the rows of all but the last `keep` batches, once they are drawn, and free their memory."""
        while len(self.drawn) > keep:
            rows: list[Row] = [{**drawing.row.result(), "place": drawing.place} for drawing in self.drawn[0]]
            with interrupt_held_back():  # what is written is no longer to be written, and counted
                try:
                    self.writer.add(rows)
                except BaseException:  # also of who sees rows once they are written
                    self.drawn.clear()  # nothing again, and nothing behind what is missing
                    raise
                batch = self.drawn.popleft()
                for row in rows:
                    self.counts.add(row)
            self.ahead.release(sum(drawing.nbytes for drawing in batch))
            for row in rows:
                self._show(row)
            self.bar.update(len(rows))

    def _own(self, items: Iterator[Item | None]) -> Iterator[tuple[int, Item] | None]:
        """The items of this process, each with its place among all; None where there is none at the moment."""
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
        """Start to decode images until enough wait or none is there; returns whether the source has ended."""
        while not self.ahead.full:
            try:
                numbered = next(own)
            except StopIteration:
                return True
            if numbered is None:
                break
            place, item = numbered
            if self.writer.done(item) and not item.version:
                self.counts.skipped += 1
                self.counts.failed_before += self.writer.failed(item)
                if not self.bar.disable:
                    self.bar.initial += 1  # not part of the speed
                    self.bar.n += 1
                continue
            self.ahead.add(place, item)
        return False

    def _inspect_batch(self, batch: list[tuple[Reading, Decoded]]) -> list[_Drawing]:
        """Inspect a batch and start to draw its overlays and masks."""
        images = [decoded.image for _, decoded in batch if decoded.image is not None]
        began = time.perf_counter()
        inspections = deque(self._inspect(images))
        share = 1000 * (time.perf_counter() - began) / max(len(images), 1)
        if len(inspections) != len(images):
            raise RuntimeError(f"the detector gave {len(inspections)} results for {len(images)} images")
        largest = max((image.shape[0] * image.shape[1] for image in images), default=1)
        at_once = max(MEMORY // (_DRAWN * largest), 1)
        drawn: list[_Drawing] = []
        for reading, decoded in batch:
            inspection = None if decoded.image is None else inspections.popleft()
            time_taken = decoded.milliseconds + (0.0 if inspection is None else share)
            error = decoded.error
            if isinstance(inspection, InputError):
                inspection, error = None, str(inspection)
            if len(drawn) >= at_once:
                drawn[-at_once].row.result()
            # The pool drops its references once a row is done: only `at_once` full-size maps are alive.
            future = self.drawing.submit(
                self.writer.row, reading.item, inspection,
                milliseconds=time_taken, error=error, temporary=decoded.temporary,
            )  # fmt: skip
            drawn.append(_Drawing(reading.place, future, decoded.nbytes))
        if at_once < 2 * len(drawn):  # large images: no memory for those of two batches
            wait([drawing.row for drawing in drawn])
        return drawn

    def _inspect(self, images: Sequence[np.ndarray]) -> list[Inspection | InputError]:
        """The inspection of each image or its error; one by one where the detector refuses the batch."""
        try:
            inspections = self.detector.predict(list[ImageInput](images), category=self.category) if images else []
        except InputError as error:
            return [error] if len(images) == 1 else [result for image in images for result in self._inspect([image])]
        self._warn_uncalibrated(any(inspection.defective is None for inspection in inspections))
        return [*inspections]

    def _show(self, row: Row) -> None:
        if self.each and self.show and not row["error"]:
            print_stdout(f"{row['path']}: {row['decision'] or 'not decided'}, score {row['score']:.4f}", flush=True)
        if row["error"] and self.show and self._failures_shown < _FAILURES_SHOWN:
            self._failures_shown += 1
            more = "; further ones are in the files only" if self._failures_shown == _FAILURES_SHOWN else ""
            tqdm.write(printable(f"uniad: {row['path']} failed: {row['error']}{more}"), file=sys.stderr)

    def _warn_uncalibrated(self, uncalibrated: bool) -> None:
        if uncalibrated and self.processes.first and not self._warned:
            self._warned = True
            tqdm.write(
                "uniad: warning: the detector has no boundary, so nothing is decided and the column decision stays "
                "empty; uniad calibrate ckpt_path=... sets one",
                file=sys.stderr,
            )
