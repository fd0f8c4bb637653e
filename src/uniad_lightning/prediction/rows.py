"""What is said about one picture as a row: of the journal, which is JSON, and of the table, which is CSV."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.prediction.open_files import gone, told
from uniad_lightning.prediction.overlays import PictureFiles
from uniad_lightning.prediction.sources.items import Item

Row = dict[str, Any]
_COLUMNS = (
    "path", "score", "normalised_score", "decision", "familiar", "num_regions", "regions", "milliseconds", "overlay",
    "mask", "error",
)  # fmt: skip
_IDENTITY = {"path", "size", "mtime_ns"}
_PLACE = "place"  # number in the input, which is for those only that put rows in order


class Rows:
    """Makes the row of a picture, and draws those that `pictures` says: `defective` (ones), `all` or `none`."""

    def __init__(self, folder: Path, pictures: str):
        if pictures not in ("defective", "all", "none"):
            near = did_you_mean(str(pictures), ("defective", "all", "none"))
            raise InputError(f"pictures={pictures}: expected defective, all or none.{near}")
        self._folder = folder
        self._pictures = pictures
        self._files = PictureFiles(folder)

    def __call__(
        self,
        item: Item,
        inspection: Inspection | None,
        *,
        milliseconds: float,
        error: str = "",
        temporary: bool = False,
    ) -> Row:
        """The row, for `add`; `error` says why there is no inspection, for now only if it is `temporary`.

        May be called from several threads at once. Raises LostError where the folder is gone.
        """
        row = empty_row(item, milliseconds, error, temporary=temporary)
        if inspection is None:
            return row
        if not math.isfinite(inspection.score):
            row["error"] = f"the detector's score is {inspection.score}; its checkpoint may be damaged"
            return row
        row.update(said(inspection))
        if self._pictures == "all" or (self._pictures == "defective" and inspection.defective):
            if not self._folder.is_dir():  # drawing would make it again, without the rows
                raise gone(self._folder)
            with told(self._folder):
                row["overlay"], row["mask"] = self._files.draw(item, inspection)
        return row


def empty_row(item: Item, milliseconds: float, error: str, *, temporary: bool = False) -> Row:
    """The row of a picture of which nothing is said yet."""
    return {
        "path": item.name,
        "size": item.size,
        "mtime_ns": item.mtime_ns,
        "score": None,
        "normalised_score": None,
        "decision": "",
        "familiar": None,
        "regions": [],
        "milliseconds": round(milliseconds, 1),
        "overlay": "",
        "mask": "",
        "error": error,
        "temporary": temporary,
    }


def said(inspection: Inspection) -> Row:
    """The part of the row that is the detector's."""
    return {
        "score": inspection.score,
        "normalised_score": inspection.normalised,
        "decision": "" if inspection.defective is None else "defective" if inspection.defective else "good",
        "familiar": None if inspection.familiar is None else bool(inspection.familiar),
        "regions": [{"box": list(r.box), "area": r.area, "peak": r.peak} for r in inspection.regions],
    }


def journal_line(row: Row) -> bytes:
    """The row as a line of JSON. The bytes of a name that are no text are escaped."""
    return part_line({name: value for name, value in row.items() if name != _PLACE})


def part_line(row: Row) -> bytes:
    """As `journal_line`, with the row's place in the input."""
    try:
        return f"{json.dumps(row, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(row)}\n".encode()


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The whole rows of a journal, each with the bytes of its line; a torn last one is left out.

    Raises InputError for a line that is no row and not the last, which no interruption leaves behind.
    """
    with path.open("rb") as journal:
        for number, line in enumerate(journal, start=1):
            row = _parsed(line)
            if row is None and journal.read(1):
                raise InputError(f"{path}, line {number}: no row of predictions; restore it or start anew")
            if row is None:
                return
            yield len(line), row


def is_temporary(row: Row) -> bool:
    """Whether a picture failed for what may pass, so that another try is worth it."""
    return bool(row.get("temporary"))  # files of before have none


def drop_temporary(path: Path) -> bool:
    """Take the rows that are worth another try out of a journal, which stays whole if this ends; whether any was."""
    if not any(is_temporary(row) for _, row in read_rows(path)):
        return False
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as kept:
            kept.writelines(part_line(row) for _, row in read_rows(path) if not is_temporary(row))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _parsed(line: bytes) -> Row | None:
    """The row of a whole line of a journal; None for any other line."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and row.keys() >= {*_COLUMNS, *_IDENTITY} - {"num_regions"} else None


def table_line(row: Row) -> bytes:
    """The row as a line of CSV; what is not known is empty."""
    failed = row["score"] is None
    cells = {
        **row,
        "familiar": "" if row["familiar"] is None else json.dumps(row["familiar"]),
        "num_regions": "" if failed else len(row["regions"]),
        "regions": "" if failed else json.dumps(row["regions"]),
    }
    return csv_text([[cells[name] for name in _COLUMNS]]).encode(errors="backslashreplace")


HEADER = csv_text([_COLUMNS])
