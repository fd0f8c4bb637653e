"""The rows of several processes: each writes a part in a file of its own, and the first makes one of them, in order."""

import json
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from shutil import rmtree

import numpy as np

from uniad_lightning.errors import InputError
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.files import (
    JOURNAL,
    PARTS,
    PredictionWriter,
    append,
    part_files,
    row_key,
)
from uniad_lightning.prediction.open_files import open_alone, refuse_gone, told
from uniad_lightning.prediction.processes import Processes
from uniad_lightning.prediction.rows import Row, Rows, part_line, read_rows
from uniad_lightning.prediction.sources.items import Digests, Item

_AT_ONCE = 1000  # rows that are put together in one go


class PartWriter:
    """Writes the rows of one of several processes into a part of its own below `folder`, with their places.

    Whatever the results and all parts there hold is `done`, whichever process of whatever call has judged it. All
    processes make theirs at the same time, none adds a row before all have, and the first one's `whole` is where
    `finish` puts everything together; None in the others.

    Raises InputError as `PredictionWriter` does.
    """

    def __init__(self, folder: Path, *, processes: Processes, whole: PredictionWriter | None, pictures: str):
        self.folder = folder
        self.processes = processes
        self.row = Rows(folder, pictures)
        self._whole = whole
        self._done = Digests()
        self._failed = Digests()
        own = self.rows_in = folder / PARTS / f"{processes.rank}.jsonl"
        with told(folder):
            own.parent.mkdir(exist_ok=True)
            self._file = open_alone(own)
            self._file.truncate(self._read(own))  # its torn last row
            for path in {folder / JOURNAL, *part_files(folder)} - {own}:
                self._read(path)

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self, path: Path) -> int:
        """Take in what a journal holds; returns the bytes of its whole rows."""
        end = 0
        for length, row in read_rows(path):
            end += length
            self._done.add(row_key(row))
            if row["error"]:
                self._failed.add(row_key(row))
        return end

    def done(self, item: Item) -> bool:
        """Whether an earlier call has judged this picture."""
        return item.key in self._done

    def failed(self, item: Item) -> bool:
        """Whether an earlier call could not judge this picture."""
        return item.key in self._failed

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; they are there when this returns, or none when it raises."""
        with told(self.folder):
            append([(self._file, map(part_line, rows))])

    def finish(self, counts: Counts, listed: str) -> Counts:
        """Wait for all processes; the first makes one of their parts, in the order of the input.

        `listed` is a digest of all names in the input, as this process has met them. Returns the counts of all in the
        first process; of nothing in the others, so that no failure of theirs ends it early by their exit status.

        Raises InputError when a process has ended, and when not all have met the same names: every picture judged is
        then in the results once, and some may be missing.
        """
        with told(self.folder):
            refuse_gone(self._file)
        self._file.close()
        everyone = self.processes.everyones((counts, listed))
        if self._whole is None:
            return Counts()
        same = len({theirs for _, theirs in everyone}) == 1
        with told(self.folder):
            merge(self.folder, self._whole, once=not same)
        self.rows_in = self.folder
        if not same:
            raise InputError(
                "input: it changed while the processes listed it, so pictures may be missing; what is judged is in "
                f"{self.folder}: go on with resume=true, or let input be a list (.txt)"
            )
        return Counts.together([theirs for theirs, _ in everyone])


def merge(folder: Path, whole: PredictionWriter, *, once: bool) -> None:
    """Move the rows of all parts to `whole`, in the order of their places; with `once` one row of each picture.

    What `whole` holds from an earlier call is passed over: that one was interrupted here.
    """
    seen = Digests()
    rows = (row for row in _in_order(part_files(folder)) if not whole.holds(row))
    if once:
        rows = (row for row in rows if seen.add(row_key(row)))
    while some := list(islice(rows, _AT_ONCE)):
        whole.add(some)
    rmtree(folder / PARTS)


def _in_order(parts: Sequence[Path]) -> Iterator[Row]:
    """The rows of all parts by their places; holds 28 bytes of each."""
    places, starts, owners = array("q"), array("q"), array("i")
    for owner, path in enumerate(parts):
        start = 0
        for length, row in read_rows(path):
            places.append(row["place"])
            starts.append(start)
            owners.append(owner)
            start += length
    order = np.argsort(np.array(places), kind="stable")
    with ExitStack() as opened:
        files = [opened.enter_context(path.open("rb")) for path in parts]
        for i in order:
            file = files[owners[i]]
            file.seek(starts[i])
            yield json.loads(file.readline())
