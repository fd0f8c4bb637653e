"""The rows of several processes: each writes a part, its own file, and the first merges them in the input's order."""

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
from uniad_lightning.prediction.open_files import check_present, explained, open_locked
from uniad_lightning.prediction.processes import Processes
from uniad_lightning.prediction.rows import Row, Rows, part_line, read_rows
from uniad_lightning.prediction.sources.items import Digests, Item

_CHUNK = 1000  # rows that are merged at once


class PartWriter:
    """Writes the rows of one of several processes into its own part below `folder`, with their places in the input.

    An image with a row in the results or in any part there is `done`. All processes create their writers together, and
    none adds a row before all have. `whole` is where `finish` merges the parts: in the first process, None in others.

    Raises InputError as `PredictionWriter` does.
    """

    def __init__(
        self,
        folder: Path,
        *,
        processes: Processes,
        whole: PredictionWriter | None,
        overlays: str,
        overlays_size: float | None = None,
    ):
        self.folder = folder
        self.processes = processes
        self.row = Rows(folder, overlays, overlays_size, processes.count)
        self._whole = whole
        self._done = Digests()
        self._failed = Digests()
        own = self.rows_in = folder / PARTS / f"{processes.rank}.jsonl"
        with explained(folder):
            own.parent.mkdir(exist_ok=True)
            self._file = open_locked(own)
            self._file.truncate(self._read(own))  # its torn last row
            for path in {folder / JOURNAL, *part_files(folder)} - {own}:
                self._read(path)

    def __enter__(self) -> "PartWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _read(self, path: Path) -> int:
        """Read a journal; returns the bytes of its whole rows."""
        end = 0
        for length, row in read_rows(path):
            end += length
            self._done.add(row_key(row))
            if row["error"]:
                self._failed.add(row_key(row))
        return end

    def done(self, item: Item) -> bool:
        """Whether an earlier call has a row of this image."""
        return item.key in self._done

    def failed(self, item: Item) -> bool:
        """Whether this image failed in an earlier call."""
        return item.key in self._failed

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows; none when it raises."""
        with explained(self.folder):
            append([(self._file, map(part_line, rows))])

    def finish(self, counts: Counts, listed: str) -> Counts:
        """Wait for all processes; the first merges their parts, in the order of the input.

        `listed` is a digest of all names in the input, as this process has listed them. Returns the counts of all in
        the first process; zeros in the others, since a launcher would end the first at a failure status of theirs.

        Raises InputError when a process has ended, and when not all have listed the same names: every inspected image
        is then in the results once, and some may be missing.
        """
        with explained(self.folder):
            check_present(self._file)
        self._file.close()
        parts = self.processes.gather((counts, listed))
        if self._whole is None:
            return Counts()
        same = len({names for _, names in parts}) == 1
        with explained(self.folder):
            merge(self.folder, self._whole, once=not same)
        self.rows_in = self.folder
        if not same:
            raise InputError(
                "input: it changed while the processes listed it, so images may be missing; finished rows are in "
                f"{self.folder}: go on with resume=true, or let input be a list (.txt)"
            )
        return Counts.total([part for part, _ in parts])


def merge(folder: Path, whole: PredictionWriter, *, once: bool) -> None:
    """Move the rows of all parts to `whole`, in the order of their places; with `once` one row of each image.

    Rows that `whole` already holds are left out: an earlier call was interrupted while it merged.
    """
    moved = Digests()
    rows = (row for row in _in_order(part_files(folder)) if not whole.holds(row))
    if once:
        rows = (row for row in rows if moved.add(row_key(row)))
    while chunk := list(islice(rows, _CHUNK)):
        whole.add(chunk)
    rmtree(folder / PARTS)


def _in_order(parts: Sequence[Path]) -> Iterator[Row]:
    """The rows of all parts by their places; takes 28 bytes of memory for each."""
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
