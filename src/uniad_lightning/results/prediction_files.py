"""The files of `uniad predict`: one row per picture, written as it is judged, whole after any kill; and pictures."""

import io
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.inspection import Inspection
from uniad_lightning.results.picture_files import PICTURE_FOLDERS, PictureFiles
from uniad_lightning.results.prediction_rows import HEADER, Row, empty_row, journal_line, parsed, said, table_line
from uniad_lightning.results.run_folder import CALIBRATION, LAST, METRICS, write_text
from uniad_lightning.sources.items import Digests, Item, key_of

TABLE = "predictions.csv"
JOURNAL = "predictions.jsonl"
SETTINGS = "predictions.json"


class PredictionWriter:
    """Writes what a detector says about pictures into `folder`.

    - `predictions.jsonl` has one row per picture: path, size and mtime_ns of its file, score, normalised_score (0.5 =
      boundary), decision (`good`, `defective`, or empty without a boundary), familiar, regions (box, area, peak),
      milliseconds, overlay and mask (files in `folder`, empty where none is drawn), error.
    - `predictions.csv` has the same as a table, without size and mtime_ns; regions as JSON, and their number.
    - `overlays/` and `masks/` have pictures of the size of the source, of those that `pictures` says: `defective`
      (ones), `all` or `none`.

    Rows go to the files with each `add`. With `resume`, those of an earlier call stay, its torn last row is cut off,
    the table is made again from the journal, and what is `done` is known; a picture that failed counts as done until
    its file changes. `settings` are plain values that must not change in between.

    Raises InputError where `folder` holds predictions and neither `resume` nor `overwrite` (which removes them) is
    given, where another run writes there, and when anything cannot be written: that is then the last row.
    """

    def __init__(
        self,
        folder: Path,
        *,
        pictures: str,
        settings: Mapping[str, Any],
        resume: bool = False,
        overwrite: bool = False,
    ):
        if pictures not in ("defective", "all", "none"):
            near = did_you_mean(str(pictures), ("defective", "all", "none"))
            raise InputError(f"pictures={pictures}: expected defective, all or none.{near}")
        if resume and overwrite:
            raise InputError("resume=true keeps what is there and overwrite=true removes it; give one of them")
        self.folder = folder
        self._pictures = pictures
        self._files = PictureFiles(folder)
        self._done = Digests()
        self._settings = json.dumps(dict(settings), indent=2, default=str) + "\n"
        _refuse_other_content(folder)
        with _told(folder), ExitStack() as opened:
            self._begin(resume, overwrite, opened)
            opened.pop_all()

    def __enter__(self) -> "PredictionWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; nothing is left to be written."""
        self._journal.close()
        self._table.close()

    def done(self, item: Item) -> bool:
        """Whether an earlier call has judged this picture."""
        return item.key in self._done

    @property
    def kept(self) -> int:
        """How many rows an earlier call has left."""
        return len(self._done)

    def row(self, item: Item, inspection: Inspection | None, *, milliseconds: float, error: str = "") -> Row:
        """The row of a picture, for `add`; draws its pictures. May be called from several threads at once."""
        row = empty_row(item, milliseconds, error)
        if inspection is None:
            return row
        if not math.isfinite(inspection.score):
            row["error"] = f"the detector's score is {inspection.score}; its checkpoint may be damaged"
            return row
        row.update(said(inspection))
        if self._pictures == "all" or (self._pictures == "defective" and inspection.defective):
            with _told(self.folder):
                row["overlay"], row["mask"] = self._files.draw(item, inspection)
        return row

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows to both files; they are there when this returns, or in neither when it raises."""
        files = ((self._journal, map(journal_line, rows)), (self._table, map(table_line, rows)))
        ends = [os.fstat(file.fileno()).st_size for file, _ in files]
        with _told(self.folder):
            try:
                for file, lines in files:
                    _write(file, b"".join(lines))
            except BaseException:  # an interrupt, too
                for (file, _), end in zip(files, ends, strict=True):
                    file.truncate(end)
                raise

    def _begin(self, resume: bool, overwrite: bool, opened: ExitStack) -> None:
        journal, table = self.folder / JOURNAL, self.folder / TABLE
        kept = _size(journal) > 0 or _size(table) > len(HEADER)  # a call that failed at once leaves no row
        if kept and not (resume or overwrite):
            raise InputError(
                f"output_dir={self.folder} already holds predictions; continue them with resume=true, choose another "
                "output_dir, or overwrite=true"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._journal = opened.enter_context(journal.open("ab", buffering=0))
        _refuse_second_writer(self._journal, self.folder)
        if resume and _size(journal):
            self._refuse_other_settings()
            self._journal.truncate(self._recover())
        else:
            for name in PICTURE_FOLDERS:
                if (self.folder / name).exists():
                    rmtree(self.folder / name)
            self._journal.truncate(0)
            write_text(table, HEADER)
            write_text(self.folder / SETTINGS, self._settings)
        self._table = table.open("ab", buffering=0)

    def _refuse_other_settings(self) -> None:
        path = self.folder / SETTINGS
        if not path.is_file():
            raise InputError(f"output_dir={self.folder}: {SETTINGS} is missing, so resume=true cannot compare settings")
        mine, theirs = json.loads(self._settings), json.loads(path.read_text())
        for name in sorted(mine.keys() | theirs.keys()):
            if mine.get(name) != theirs.get(name):
                raise InputError(
                    f"output_dir={self.folder} was begun with {name}={theirs.get(name)}, this call has {name}="
                    f"{mine.get(name)}; resume with the same, or choose another output_dir"
                )

    def _recover(self) -> int:
        """Make the table again from the whole rows of the journal; returns the bytes these take.

        Raises InputError for a line that is no row and not the last, which no interruption leaves behind.
        """
        path, end = self.folder / JOURNAL, 0
        temporary = self.folder / f".{TABLE}.{os.getpid()}.tmp"
        try:
            with path.open("rb") as journal, temporary.open("wb") as table:
                table.write(HEADER.encode())
                for number, line in enumerate(journal, start=1):
                    row = parsed(line)
                    if row is None and journal.read(1):
                        raise InputError(f"{path}, line {number}: no row of predictions; restore it or start anew")
                    if row is None:
                        break
                    end += len(line)
                    self._done.add(key_of(row["path"], row["size"], row["mtime_ns"]))
                    table.write(table_line(row))
            temporary.replace(self.folder / TABLE)
        finally:
            temporary.unlink(missing_ok=True)
        return end


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _write(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:  # a nearly full disk takes a part
        rest = rest[file.write(rest) :]


def _refuse_other_content(folder: Path) -> None:
    """Raises InputError for a folder of another kind of run, or with pictures of others where ours would go."""
    for name in (METRICS, LAST, CALIBRATION):
        if (folder / name).exists():
            raise InputError(f"output_dir={folder} holds a run of another command ({name}); choose another output_dir")
    if (folder / JOURNAL).exists():
        return
    for name in PICTURE_FOLDERS:
        if (folder / name).exists():
            raise InputError(f"output_dir={folder} has a folder {name} that is not of predictions; choose another")


def _refuse_second_writer(file: io.FileIO, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the file is closed, or its process has died
    except BlockingIOError:
        raise InputError(f"output_dir={folder}: another uniad predict writes there; choose another") from None
    except OSError:  # a file system without locks
        return


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """An OSError within as the one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename or folder}: cannot be written ({error.strerror or error}); what is written is kept: make "
            "room or mend the permissions, then go on with resume=true"
        ) from None
