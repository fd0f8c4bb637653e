"""The index of a feature store: which image lies in which slot, in an SQLite file that may be found damaged."""

import re
import sqlite3
from pathlib import Path

_BUSY_SECONDS = 120  # to wait for the transaction of another process
_OF_CONTENT = re.compile("no such|schema|unsupported")  # what SQLite says of a table that is another
_TABLES = """
create table if not exists entry (signature blob primary key, slot integer, checksum integer, mask blob) without rowid;
create table if not exists slots (next integer);
insert into slots select 0 where not exists (select * from slots);
"""
# `next`, unless that is damaged
FREE_SLOT = "select max(next, (select ifnull(max(slot) + 1, 0) from entry)) from slots"


class Connection:
    """A connection to the index for one transaction, committed at the end; none is open across a fork.

    It does not make the file: another process may have just removed it.
    """

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        self._index = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", timeout=_BUSY_SECONDS, uri=True)
        return self._index

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._index.commit()
        finally:
            self._index.close()


def prepare(path: Path) -> None:
    """Make the tables; a damaged index is replaced, since its features can be computed again.

    Raises:
        sqlite3.Error, OSError: The index cannot be read or written.
    """
    try:
        if _is_sound(path):
            return
    except sqlite3.OperationalError as error:
        if not _OF_CONTENT.search(str(error)):  # a full disk, a permission, a lock
            raise
    except (sqlite3.DatabaseError, ValueError, OverflowError):  # the last two of damaged texts and numbers
        pass
    path.unlink()
    path.touch()
    with Connection(path) as index:
        index.executescript(_TABLES)


def _is_sound(path: Path) -> bool:
    """Whether the index, made where it is missing, has its tables and passes SQLite's own check."""
    path.touch()
    with Connection(path) as index:
        index.executescript(_TABLES)
        index.execute("select signature, slot, checksum, mask from entry limit 1").fetchall()
        return index.execute("pragma quick_check(1)").fetchone() == ("ok",) and index.execute(
            "select count(*), typeof(max(next)) from slots"
        ).fetchone() == (1, "integer")


def may_be(slot: object, checksum: object, mask: object, end: object) -> bool:
    """Whether values of a row can be those that were written: in a damaged index they are of any type and size."""
    numbers = type(slot) is type(checksum) is type(end) is int
    return numbers and isinstance(mask, bytes) and 0 <= slot < end  # type: ignore[operator]
