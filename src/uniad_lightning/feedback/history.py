"""All verdicts on the images of one folder of predictions: a row is added for each, and none is changed or removed."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from uniad_lightning.errors import InputError, one_line, system_reason
from uniad_lightning.feedback.verdicts import VERDICTS
from uniad_lightning.files.atomic import remove_left, write_whole
from uniad_lightning.files.csv_text import MARK, csv_text

FEEDBACK = "feedback.csv"
_PATIENCE = 60  # seconds; another call that adds verdicts takes less than one
_RESTORE = "it was changed by another program: restore it, or move it away to begin a new one"


class Entry(NamedTuple):
    """One verdict, and what had been decided when it was given.

    Attributes:
        when: the verdict's time, in UTC.
        path: of the image, as `predictions.csv` has it.
        verdict: `good` or `defective`.
        by: who reviewed, or empty.
        note: free text, or empty.
        decision: that of the predictions: `good`, `defective`, `unknown`, or empty.
        score: the image score that it was decided on; None for an image that could not be inspected.
        category: given to or found in the image, or empty.
        size: bytes of the image's file; None where it had none.
        model: the file of the detector.
        model_changed: when that file was last changed, in UTC.
    """

    when: datetime
    path: str
    verdict: str
    by: str
    note: str
    decision: str
    score: float | None
    category: str
    size: int | None
    model: str
    model_changed: str


def read_history(folder: Path) -> list[Entry]:
    """The verdicts on the predictions in `folder`, in the order in which they were added.

    Raises InputError for a damaged file.
    """
    return _parsed(_text(folder / FEEDBACK), folder / FEEDBACK)


def latest(entries: Iterable[Entry]) -> dict[str, Entry]:
    """The verdict that counts of each image, by path: that with the latest time, of equal times the one added last."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.path not in found or entry.when >= found[entry.path].when:
            found[entry.path] = entry
    return dict(sorted(found.items()))


def add(folder: Path, entries: Sequence[Entry]) -> list[Entry]:
    """Add those `entries` that the history in `folder` does not have; returns them.

    It has one if a row has the same image, verdict, reviewer and time, or if the row that counts says the same, note
    included. Calls at the same time wait for each other. Raises InputError where the file cannot be read or written; it
    is then as it was.
    """
    path = folder / FEEDBACK
    with _locked(path):
        text = _text(path)
        known = _parsed(text, path)
        keys, counting = set(map(_key, known)), latest(known)
        added: list[Entry] = []
        for entry in entries:
            before = counting.get(entry.path)
            if _key(entry) in keys or _says_the_same(entry, before):
                continue
            added.append(entry)
            keys.add(_key(entry))
            if before is None or entry.when >= before.when:
                counting[entry.path] = entry
        if added:
            # The bytes that are there stay; the file is replaced by a longer one, so that a kill leaves no half row.
            _write(path, text + csv_text(([] if text else [Entry._fields]) + [_cells(one) for one in added]))
    return added


def _key(entry: Entry) -> tuple[object, ...]:
    return entry.path, entry.verdict, entry.by, entry.when


def _says_the_same(entry: Entry, before: Entry | None) -> bool:
    """Whether `before`, the row that counts, says what `entry` says later."""
    if before is None or entry.when < before.when:
        return False
    return (before.verdict, before.by, before.note) == (entry.verdict, entry.by, entry.note)


def _cells(entry: Entry) -> list[str]:
    score = "" if entry.score is None else f"{entry.score:.9g}"
    size = "" if entry.size is None else str(entry.size)
    plain = entry._replace(when=entry.when.isoformat(timespec="microseconds"))  # type: ignore[arg-type]
    return list(map(str, plain._replace(score=score, size=size)))  # type: ignore[arg-type]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode() if path.exists() else ""
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not as uniad feedback writes it (no UTF-8); {_RESTORE}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read; {system_reason(error)}") from None


def _write(path: Path, text: str) -> None:
    try:
        remove_left([path])
        write_whole(path, text.encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"{path}: cannot be written, and no verdict was added; {system_reason(error)}") from None


def _parsed(text: str, path: Path) -> list[Entry]:
    if not text:
        return []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    before = csv.field_size_limit(max(len(text), csv.field_size_limit()))  # notes of earlier versions had any length
    try:
        if next(reader, None) != list(Entry._fields) or not text.endswith("\n"):
            raise ValueError("another head, or no end")
        return [_entry(row) for row in reader]
    except (csv.Error, ValueError, TypeError) as error:
        place = f"{path}, line {reader.line_num}"
        raise InputError(f"{place}: is not as uniad feedback writes it ({one_line(error)}); {_RESTORE}") from None
    finally:
        csv.field_size_limit(before)


def _entry(row: Sequence[str]) -> Entry:
    """The entry of a row; ValueError or TypeError for any other row."""
    cells = Entry(*(cell.removeprefix(MARK) for cell in row))  # type: ignore[arg-type]
    text: dict[str, str] = cells._asdict()
    when = datetime.fromisoformat(text["when"])
    if text["verdict"] not in VERDICTS or when.tzinfo is None:
        raise ValueError(f"no verdict with its time: {text['verdict']!r:.40}, {text['when']!r:.40}")
    return cells._replace(
        when=when,
        score=float(text["score"]) if text["score"] else None,
        size=int(text["size"]) if text["size"] else None,
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout:
        raise InputError(f"{path}: another uniad feedback has been adding to it for {_PATIENCE} s; try again") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be written, and no verdict was added; {system_reason(error)}") from None
    try:
        yield
    finally:
        lock.release()
