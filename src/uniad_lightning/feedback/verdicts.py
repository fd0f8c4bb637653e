"""A table of verdicts as a person, a spreadsheet or the page of `uniad report` writes it."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.errors import InputError, did_you_mean, one_line, system_reason
from uniad_lightning.files.csv_text import MARK
from uniad_lightning.files.text_lines import read_text

GOOD, DEFECTIVE = VERDICTS = ("good", "defective")
NEEDED, OPTIONAL = ("path", "verdict"), ("by", "when", "note")
_EXAMPLE = "path,verdict,by,when,note with a row such as 'a/001.png,good,Kim,2026-05-04T13:30:00+02:00,reflection'"
_LONGEST = 10_000  # characters of a note or a name
_AHEAD = timedelta(days=1)  # of this machine's clock; a time far in the future would win over all that come after it


class Verdict(NamedTuple):
    """One row of the table.

    Attributes:
        path: of the image, as `predictions.csv` has it.
        verdict: `good` or `defective`.
        by: who reviewed, or empty.
        when: with a time zone; of a row that does not say it, when the table was last changed.
        note: free text, or empty.
        place: file and line, for messages.
    """

    path: str
    verdict: str
    by: str
    when: datetime
    note: str
    place: str


def read_verdicts(file: Path) -> list[Verdict]:
    """The verdicts in a table, by their time and those of one time in its order; rows without a verdict are left out.

    Columns are found by the names in the first line, others are ignored, so that `predictions.csv` with a column
    `verdict` is such a table, too. Separated by commas, semicolons or tabs, in UTF-8 or UTF-16.

    Raises InputError for a file that cannot be read, missing columns, an unknown verdict or time, and no verdict.
    """
    text, changed = _read(file)
    verdicts = []
    for number, cells in _rows(text, file):
        place = f"{file}, line {number}"
        word = cells["verdict"].casefold()
        if not word:
            continue
        if word not in VERDICTS:
            near = did_you_mean(word, VERDICTS)
            raise InputError(f"{place}: verdict is {cells['verdict']!r:.40}, expected good or defective.{near}")
        if not cells["path"]:
            raise InputError(f"{place}: a verdict without a path; expected the path as predictions.csv has it")
        for column in ("by", "note"):
            if len(cells[column]) > _LONGEST:
                raise InputError(
                    f"{place}: {column} has {len(cells[column])} characters, expected at most {_LONGEST}; shorten it"
                )
        when = _time(cells["when"], place) if cells["when"] else _past(changed, file)
        verdicts.append(Verdict(cells["path"], word, cells["by"], when, cells["note"], place))
    if not verdicts:
        raise InputError(f"{file}: holds no verdict; expected {_EXAMPLE}")
    return sorted(verdicts, key=lambda one: one.when)


def _read(file: Path) -> tuple[str, datetime]:
    """The text of the file, and when it was last changed."""
    try:
        return read_text(file), datetime.fromtimestamp(file.stat().st_mtime, timezone.utc)
    except OSError as error:
        raise InputError(f"verdicts={file}: cannot be read; {system_reason(error)}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 at byte {error.start}; save it as CSV in UTF-8") from None


def _rows(text: str, file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Number of its last line and cells, by column, of each row below the head."""
    head = text.partition("\n")[0]
    separator = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = [name.strip().casefold() for name in next(reader, [])]
        _check_head(names, file)
        for row in reader:
            if any(row):
                cells = dict(zip(names, (cell.removeprefix(MARK) for cell in row), strict=False))
                if len(row) > len(names):
                    raise InputError(
                        f"{file}, line {reader.line_num}: has {len(row)} cells, the head {len(names)}; put a text that "
                        f"holds a {separator!r} between double quotes"
                    )
                plain = {name: cells.get(name, "").strip() for name in (*NEEDED, *OPTIONAL)}
                yield reader.line_num, {**plain, "path": cells.get("path", "")}  # a name may begin with a blank
    except csv.Error as error:
        raise InputError(
            f"{file}, line {reader.line_num}: no row of CSV ({one_line(error)}); expected {_EXAMPLE}"
        ) from None


def _check_head(names: Sequence[str], file: Path) -> None:
    for needed in NEEDED:
        if needed not in names:
            found, near = ", ".join(names), did_you_mean(needed, names)
            raise InputError(f"{file}, line 1: no column '{needed}' in {found!r:.80}.{near} Expected {_EXAMPLE}")
        if names.count(needed) > 1:
            raise InputError(f"{file}, line 1: the column '{needed}' is there twice; leave one of them out")


def _time(text: str, place: str) -> datetime:
    """A time in ISO 8601; without a time zone that of this machine."""
    try:
        when = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise InputError(f"{place}: when is {text!r:.40}, expected a time such as 2026-05-04T13:30:00+02:00") from None
    if when > datetime.now(timezone.utc) + _AHEAD:
        raise InputError(
            f"{place}: when is {text!r:.40}, which is still to come; correct it, or the clock of this machine"
        )
    return when


def _past(changed: datetime, file: Path) -> datetime:
    """When the table was last changed, which is the time of its rows without one."""
    if changed > datetime.now(timezone.utc) + _AHEAD:
        raise InputError(
            f"{file}: was last changed at {changed.isoformat(timespec='seconds')}, which is still to come; save it "
            "anew, correct the clock of this machine, or give the times in a column 'when'"
        )
    return changed
