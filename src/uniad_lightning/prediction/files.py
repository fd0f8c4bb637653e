"""The result files of `uniad predict`: one row per image, written as soon as it is inspected, whole after a kill."""

import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from uniad_lightning.errors import InputError
from uniad_lightning.files.atomic import replacing
from uniad_lightning.files.json_file import read_object
from uniad_lightning.files.within import is_within
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.open_files import check_present, explained, open_locked
from uniad_lightning.prediction.overlays import OVERLAY_FOLDERS, remove_undrawn
from uniad_lightning.prediction.processes import ALONE
from uniad_lightning.prediction.rows import (
    HEADER,
    Row,
    Rows,
    drop_temporary,
    journal_line,
    read_rows,
    table_line,
)
from uniad_lightning.prediction.sources.items import Digests, Item, key_of
from uniad_lightning.results.run_folder import CALIBRATION, JOURNAL, LAST, METRICS, write_text
from uniad_lightning.results.written_files import note

TABLE = "predictions.csv"
SETTINGS = "predictions.json"
PARTS = "predictions.parts"  # folder of the rows of several processes, until they are merged


def files_in(place: Path) -> str:
    """`: predictions.csv, overlays/` for what a person opens in the folder `place` of the results."""
    names = [name for name in (TABLE, *OVERLAY_FOLDERS) if (place / name).exists()]
    shown = (f"{name}/" if name in OVERLAY_FOLDERS else name for name in names)
    return f": {', '.join(shown)}" if names else ""


class PredictionWriter:
    """Writes the results of a detector into `folder`.

    - `predictions.jsonl` has one row per image: path, size and mtime_ns of its file, score, normalised_score (0.5 =
      boundary), decision (`good`, `defective`, `unknown`, or empty without a boundary), category (given, or found),
      familiar, regions (box, area, peak), milliseconds, overlay and mask (files in `folder`, empty where none is
      drawn), error, temporary (whether the reason of a failure may pass).
    - `predictions.csv` has the same as a table, without size, mtime_ns and temporary; regions as JSON and their number.
    - `overlays/` and `masks/` have images of the size of the source, of `overlays`: `defective` ones, `all` or `none`,
      until they take `overlays_size` GB.

    Each `add` writes its rows. With `resume` the rows of an earlier call are kept and their images are `done`; its torn
    last row is cut off, and the table is made again from the journal. A failed image is done until its file changes,
    unless the failure was temporary: that row is dropped. `settings` are plain values that must not change in between.

    Raises InputError where `folder` holds predictions and neither `resume` nor `overwrite` (which removes them) is
    given, where another run writes there, and when a file cannot be written: no row is added then. Raises LostError
    when the files have been removed or replaced.
    """

    processes = ALONE

    def __init__(
        self,
        folder: Path,
        *,
        overlays: str,
        overlays_size: float | None = None,
        settings: Mapping[str, Any],
        resume: bool = False,
        overwrite: bool = False,
    ):
        if resume and overwrite:
            raise InputError("resume=true keeps what is there and overwrite=true removes it; give one of them")
        self.folder = self.rows_in = folder
        self.row = Rows(folder, overlays, overlays_size)
        self.added: Callable[[int], object] = int  # told the size of the journal after each `add`
        self._done = Digests()
        self._failed = Digests()
        self._settings = json.dumps(dict(settings), indent=2, default=str) + "\n"
        _refuse_other_content(folder)
        with explained(folder), ExitStack() as opened:
            self._begin(resume, overwrite, opened)
            opened.pop_all()

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._journal.close()
        self._table.close()

    def done(self, item: Item) -> bool:
        """Whether an earlier call has a row of this image."""
        return item.key in self._done

    def failed(self, item: Item) -> bool:
        """Whether this image failed in an earlier call."""
        return item.key in self._failed

    def holds(self, row: Row) -> bool:
        """Whether an earlier call has a row of the same image."""
        return row_key(row) in self._done

    @property
    def kept(self) -> int:
        """How many rows of earlier calls there are."""
        return len(self._done)

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows to both files; to neither when it raises."""
        with explained(self.folder):
            append([(self._journal, map(journal_line, rows)), (self._table, map(table_line, rows))])
            self.added(os.fstat(self._journal.fileno()).st_size)

    def finish(self, counts: Counts, listed: str) -> Counts:
        """Check that the files are still there; returns `counts`, as `PartWriter.finish` of a single process."""
        with explained(self.folder):
            check_present(self._journal, self._table)
        return counts

    def _begin(self, resume: bool, overwrite: bool, opened: ExitStack) -> None:
        journal, table, parts = self.folder / JOURNAL, self.folder / TABLE, part_files(self.folder)
        kept = any(map(_size, [journal, *parts]))
        if (kept or _size(table) > len(HEADER)) and not (resume or overwrite):
            raise InputError(
                f"output_dir={self.folder} already holds predictions; continue them with resume=true, choose another "
                "output_dir, or overwrite=true"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        note(journal)
        self._journal = opened.enter_context(open_locked(journal))
        if resume and kept:
            self._refuse_other_settings()
            if [drop_temporary(path) for path in (journal, *parts)][0]:
                with self._journal:  # replaced by a new file
                    self._journal = opened.enter_context(open_locked(journal))
            self._journal.truncate(self._recover())
            remove_undrawn(self.folder, _drawn(self.folder))
        else:
            _remove_drawn(self.folder)
            self._journal.truncate(0)
            write_text(table, HEADER)
            write_text(self.folder / SETTINGS, self._settings)
        self._table = table.open("ab", buffering=0)

    def _refuse_other_settings(self) -> None:
        path = self.folder / SETTINGS
        if not path.is_file():
            raise InputError(f"output_dir={self.folder}: {SETTINGS} is missing, so resume=true cannot compare settings")
        current, saved = json.loads(self._settings), read_object(path, "choose another output_dir")
        for name in sorted(current.keys() | saved.keys()):
            if current.get(name) != saved.get(name):
                raise InputError(
                    f"output_dir={self.folder} was begun with {name}={saved.get(name)}, this call has {name}="
                    f"{current.get(name)}; resume with the same, or choose another output_dir"
                )

    def _recover(self) -> int:
        """Make the table again from the whole rows of the journal; returns the bytes these take."""
        end = 0
        with replacing(self.folder / TABLE) as temporary, temporary.open("wb") as table:
            table.write(HEADER.encode())
            for length, row in read_rows(self.folder / JOURNAL):
                end += length
                self._done.add(row_key(row))
                if row["error"]:
                    self._failed.add(row_key(row))
                table.write(table_line(row))
        return end


def part_files(folder: Path) -> list[Path]:
    """The files of rows that several processes have left in a folder of results."""
    return sorted((folder / PARTS).glob("*.jsonl"))


def row_key(row: Row) -> str:
    """The key of its image, as `Item.key`."""
    return key_of(row["path"], row["size"], row["mtime_ns"])


def append(lines: Sequence[tuple[io.FileIO, Iterable[bytes]]]) -> None:
    """Append lines to files; when one cannot be written, all are as they were."""
    check_present(*(file for file, _ in lines))
    ends = [os.fstat(file.fileno()).st_size for file, _ in lines]
    try:
        for file, own in lines:
            _write(file, b"".join(own))
    except BaseException:  # an interrupt, too
        for (file, _), end in zip(lines, ends, strict=True):
            file.truncate(end)
        raise


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _write(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a nearly full disk takes a part
        rest = rest[file.write(rest) :]


def _remove_drawn(folder: Path) -> None:
    """Remove the overlays and masks that rows of earlier calls name, and the rows of several processes."""
    parts = part_files(folder)
    for journal in filter(_size, [folder / JOURNAL, *parts]):
        with suppress(InputError):  # a damaged line: the files of the rows behind it stay
            for _, row in read_rows(journal):
                for name in filter(None, (row["overlay"], row["mask"])):
                    if is_within(folder, folder / name):
                        (folder / name).unlink(missing_ok=True)
    remove_undrawn(folder, Digests())
    for part in parts:
        part.unlink()
    for name in (*OVERLAY_FOLDERS, PARTS):
        for place, _, _ in os.walk(folder / name, topdown=False):
            with suppress(OSError):  # it holds a file that no row names
                os.rmdir(place)


def _drawn(folder: Path) -> Digests:
    """The overlays and masks that rows name."""
    names = Digests()
    for journal in filter(_size, [folder / JOURNAL, *part_files(folder)]):
        for _, row in read_rows(journal):
            for name in filter(None, (row["overlay"], row["mask"])):
                names.add(name)
    return names


def _refuse_other_content(folder: Path) -> None:
    """Raises InputError for a folder of another kind of run, or with other files where overlays would go."""
    for name in (METRICS, LAST, CALIBRATION):
        if (folder / name).exists():
            raise InputError(f"output_dir={folder} holds a run of another command ({name}); choose another output_dir")
    if (folder / JOURNAL).exists():
        return
    for name in OVERLAY_FOLDERS:
        if (folder / name).exists():
            raise InputError(f"output_dir={folder} has a folder {name} that is not of predictions; choose another")
