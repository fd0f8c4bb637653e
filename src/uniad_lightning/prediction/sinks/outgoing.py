"""Rows on their way: the journal is the spool, from which each sink gets every row at least once, in order."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.prediction.rows import is_temporary, read_rows
from uniad_lightning.prediction.sinks.base import Delivery, NotTakenError, Sink
from uniad_lightning.prediction.sinks.positions import Positions
from uniad_lightning.progress_bar import print_beside
from uniad_lightning.results.run_folder import JOURNAL

# All in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # before a row that was not taken is tried again; doubled each time
_LAST_PAUSE = 1.0  # the longest one at the end of a call
_PATIENCE = 10.0  # at the end of a call, for a sink that takes nothing
_LEAVE = 1.0  # for a thread after an error or interrupt


class Outgoing:
    """Delivers the rows of the journal in `folder` to sinks, each by a thread of its own, while more are added.

    A row that was not taken is tried again, after pauses that grow to a minute; those behind it wait in the journal.
    The inspection waits for nothing. When it is over, `finish` waits until all is taken or a sink has taken nothing for
    ten seconds; the rest is delivered by a call with `resume`. A sink that is new in such a call gets all rows.
    """

    def __init__(self, folder: Path, sinks: Sequence[Sink], *, resume: bool):
        journal = folder / JOURNAL
        positions = Positions(folder, resume=resume) if sinks else None
        self._routes = [_Route(sink, journal, positions) for sink in sinks if positions is not None]

    def __enter__(self) -> "Outgoing":
        for route in self._routes:
            route.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for route in self._routes:
            route.end(_LEAVE)

    def added(self, size: int) -> None:
        """More rows are in the journal, which has `size` bytes of whole ones."""
        for route in self._routes:
            route.added(size)

    def finish(self) -> int:
        """Wait for the sinks; returns how many rows are left over all of them."""
        for route in self._routes:
            route.hurry()
        return sum(route.finish() for route in self._routes)


class _Route(threading.Thread):
    """The way to one sink."""

    def __init__(self, sink: Sink, journal: Path, positions: Positions):
        super().__init__(name=f"sink {sink.shown}", daemon=True)
        self._sink = sink
        self._journal = journal
        self._positions = positions
        self._size = journal.stat().st_size  # of the whole rows
        self._at = self._taken_before()  # bytes of those that are taken
        self._progress = time.monotonic()
        self._reason = ""  # why the present row is not taken
        self._changed = threading.Condition()
        self._hurried = self._ended = self._abandoned = False

    def added(self, size: int) -> None:
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def hurry(self) -> None:
        """Begin to end: pauses are short from now on."""
        with self._changed:
            self._hurried = True
            self._progress = time.monotonic()
            self._changed.notify_all()

    def finish(self) -> int:
        """Wait while rows are taken; returns how many are left."""
        with self._changed:
            while self._at < self._size and self.is_alive():
                patience = self._progress + _PATIENCE - time.monotonic()
                if patience <= 0:
                    break
                self._changed.wait(patience)
        return self.end(_LEAVE)

    def end(self, patience: float) -> int:
        """End the thread, and say, once, how many rows are left."""
        with self._changed:
            if self._ended:
                return 0
            self._ended = True
            self._changed.notify_all()
        self.join(patience)
        self._abandoned = self.is_alive()  # it waits for a receiver, at most as long as that may take
        self._positions.save()
        if not self._abandoned:
            self._sink.close()
        left = self._left()
        if left:
            reason = f" ({self._reason})" if self._reason else ""
            print_beside(
                f"warning: {self._sink.shown}: {left} row{'' if left == 1 else 's'} not delivered{reason}; kept, and "
                "delivered by a call with resume=true"
            )
        return left

    def run(self) -> None:
        with self._journal.open("rb") as file:
            while self._wait_for_row():
                file.seek(self._at)
                line = file.readline()
                row = json.loads(line)
                delivery = Delivery(self._positions.id_of(row), row)
                if not self._deliver(delivery):
                    return
                if self._abandoned:  # the call is over; the row is delivered again
                    return
                if not is_temporary(row):  # a row that resume=true takes out could not be found again
                    self._positions.take(self._sink.shown, delivery.id)
                with self._changed:
                    self._at += len(line)
                    self._progress = time.monotonic()
                    self._changed.notify_all()

    def _taken_before(self) -> int:
        """The bytes up to the last row that an earlier call has delivered; 0 where that is not there."""
        last, end = self._positions.last(self._sink.shown), 0
        for length, row in read_rows(self._journal) if last is not None else ():
            end += length
            if self._positions.id_of(row) == last:
                return end
        return 0

    def _wait_for_row(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._at < self._size)
            return not self._ended

    def _deliver(self, delivery: Delivery) -> bool:
        """Try until the row is taken; False where the end comes first."""
        pause = _FIRST_PAUSE
        while True:
            try:
                self._sink.deliver(delivery)
            except NotTakenError as failure:
                if not self._reason:
                    print_beside(f"{self._sink.shown}: takes no row ({failure}); kept, and tried again")
                self._reason = str(failure)
            else:
                if self._reason:
                    print_beside(f"{self._sink.shown}: takes rows again")
                self._reason = ""
                return True
            if not self._pause(pause):
                return False
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try, which comes at once when the end begins; False where the end is there."""
        with self._changed:
            hurried = self._hurried
            seconds = min(seconds, _LAST_PAUSE) if hurried else seconds
            self._changed.wait_for(lambda: self._ended or self._hurried != hurried, seconds)
            return not self._ended

    def _left(self) -> int:
        try:
            with self._journal.open("rb") as file:
                file.seek(self._at)
                return sum(1 for line in file if line.endswith(b"\n"))
        except OSError:  # the results were removed, which the call reports
            return 0
