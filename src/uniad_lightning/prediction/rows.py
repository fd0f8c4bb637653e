"""The result of one image as a row: of the journal, which is JSON, and of the table, which is CSV."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.atomic import replacing
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.prediction.open_files import explained, lost
from uniad_lightning.prediction.overlays import OverlayFiles
from uniad_lightning.prediction.sources.items import Item

Row = dict[str, Any]
_COLUMNS = (
    "path", "score", "normalised_score", "decision", "category", "familiar", "num_regions", "regions", "milliseconds",
    "overlay", "mask", "error",
)  # fmt: skip
_IDENTITY = {"path", "size", "mtime_ns"}
_PLACE = "place"  # number in the input, by which the rows of several processes are put in order


class Rows:
    """Makes the row of an image, and draws overlay and mask of `overlays`: `defective` images, `all` or `none`.

    `overlays_size` bounds them, see `OverlayFiles`.
    """

    def __init__(self, folder: Path, overlays: str, overlays_size: float | None = None, processes: int = 1):
        if overlays not in ("defective", "all", "none"):
            near = did_you_mean(str(overlays), ("defective", "all", "none"))
            raise InputError(f"overlays={overlays}: expected defective, all or none.{near}")
        self._folder = folder
        self._overlays = overlays
        self._files = OverlayFiles(folder, overlays_size, processes)

    def __call__(
        self,
        item: Item,
        inspection: Inspection | None,
        *,
        milliseconds: float,
        error: str = "",
        temporary: bool = False,
    ) -> Row:
        """The row, for `add`; `error` is why there is no inspection, `temporary` whether that may pass.

        May be called from several threads at once. Raises LostError where the folder, or one in it, has been removed.
        """
        row = empty_row(item, milliseconds, error, temporary=temporary)
        if inspection is None:
            return row
        if not math.isfinite(inspection.score):
            row["error"] = f"the detector's score is {inspection.score}; its checkpoint may be damaged"
            return row
        row.update(inspection_fields(inspection))
        if self._overlays == "all" or (self._overlays == "defective" and inspection.defective):
            with explained(self._folder):
                try:
                    row["overlay"], row["mask"] = self._files.draw(item, inspection)
                except (FileNotFoundError, NotADirectoryError):  # a folder that was made is no longer there
                    raise lost(self._folder) from None
        return row


def empty_row(item: Item, milliseconds: float, error: str, *, temporary: bool = False) -> Row:
    """The row of an image without an inspection."""
    return {
        "path": item.name,
        "size": item.size,
        "mtime_ns": item.mtime_ns,
        "score": None,
        "normalised_score": None,
        "decision": "",
        "category": "",
        "familiar": None,
        "regions": [],
        "milliseconds": round(milliseconds, 1),
        "overlay": "",
        "mask": "",
        "error": error,
        "temporary": temporary,
    }


def inspection_fields(inspection: Inspection) -> Row:
    """The fields of the row that come from the detector."""
    return {
        "score": inspection.score,
        "normalised_score": inspection.normalised,
        "decision": inspection.decision or "",
        "category": inspection.category or "",
        "familiar": None if inspection.familiar is None else bool(inspection.familiar),
        "regions": [{"box": list(r.box), "area": r.area, "peak": r.peak} for r in inspection.regions],
    }


def journal_line(row: Row) -> bytes:
    """The row as a line of JSON. Bytes of a name that are not valid text are escaped."""
    return part_line({name: value for name, value in row.items() if name != _PLACE})


def part_line(row: Row) -> bytes:
    """As `journal_line`, with the row's place in the input."""
    try:
        return f"{json.dumps(row, ensure_ascii=False)}\n".encode()
    except UnicodeEncodeError:
        return f"{json.dumps(row)}\n".encode()


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The whole rows of a journal, each with the bytes of its line; a torn last one is left out.

    Raises InputError for any other line that is not a row, since an interruption cannot cause that.
    """
    with path.open("rb") as journal:
        for number, line in enumerate(journal, start=1):
            row = _parsed(line)
            # Without its end it is being written at this moment, and may be followed by more by now.
            if row is None and line.endswith(b"\n") and journal.read(1):
                raise InputError(f"{path}, line {number}: no row of predictions; restore it or start anew")
            if row is None:
                return
            yield len(line), row


def is_temporary(row: Row) -> bool:
    """Whether an image failed for a reason that may pass."""
    return bool(row.get("temporary"))  # files of earlier versions lack it


def drop_temporary(path: Path) -> bool:
    """Remove the temporary failures from a journal, which is never left incomplete; returns whether there were any."""
    if not any(is_temporary(row) for _, row in read_rows(path)):
        return False
    with replacing(path) as temporary, temporary.open("wb") as kept:
        kept.writelines(part_line(row) for _, row in read_rows(path) if not is_temporary(row))
    return True


def _parsed(line: bytes) -> Row | None:
    """The row of a whole line of a journal; None for any other line."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    row = {"category": "", **row}  # which rows of earlier versions lack
    if not row.keys() >= {*_COLUMNS, *_IDENTITY} - {"num_regions"} or not isinstance(row["path"], str):
        return None
    return row if row["score"] is None or (_is_number(row["score"]) and isinstance(row["regions"], list)) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def table_line(row: Row) -> bytes:
    """The row as a line of CSV; unknown values are empty."""
    failed = row["score"] is None
    cells = {
        **row,
        "familiar": "" if row["familiar"] is None else json.dumps(row["familiar"]),
        "num_regions": "" if failed else len(row["regions"]),
        "regions": "" if failed else json.dumps(row["regions"]),
    }
    return csv_text([[cells[name] for name in _COLUMNS]]).encode(errors="backslashreplace")


HEADER = csv_text([_COLUMNS])
