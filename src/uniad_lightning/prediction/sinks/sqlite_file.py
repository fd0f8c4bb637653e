"""Rows into a table of an SQLite file, which may be read while it is written."""

import json
import sqlite3
import time
from pathlib import Path
from typing import Any

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.files.user_path import expand
from uniad_lightning.prediction.sinks.base import PATIENCE, Delivery, NotTakenError

_COLUMNS = {
    "id": "TEXT PRIMARY KEY", "path": "TEXT", "score": "REAL", "normalised_score": "REAL", "decision": "TEXT",
    "category": "TEXT", "familiar": "INTEGER", "regions": "TEXT", "milliseconds": "REAL", "overlay": "TEXT",
    "mask": "TEXT", "error": "TEXT", "temporary": "INTEGER", "size": "INTEGER", "mtime_ns": "INTEGER",
}  # fmt: skip
_TABLE = f"CREATE TABLE IF NOT EXISTS predictions ({', '.join(f'{name} {kind}' for name, kind in _COLUMNS.items())})"
_INSERT = f"INSERT OR IGNORE INTO predictions ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"


class SqliteFile:
    """The table `predictions` of a file, made where there is none; regions are JSON. Several runs may share it.

    Raises InputError for a file that cannot be used.
    """

    def __init__(self, address: str):
        path = expand(address.partition(":")[2])
        self.shown = f"sqlite:{path}"
        if not path.name or not path.parent.is_dir():
            raise InputError(f"sink={self.shown}: expected sqlite:FILE in an existing folder; make {path.parent}")
        try:
            self._connection = _open(path)
        except sqlite3.Error as error:
            raise InputError(
                f"sink={self.shown}: cannot be used ({one_line(error)}); give a new file, or one that uniad has written"
            ) from None

    def deliver(self, delivery: Delivery) -> None:
        """Insert the row; one that is there already is left as it is."""
        row = {"id": delivery.id, **delivery.row}
        try:
            self._connection.execute(_INSERT, [_value(row.get(name)) for name in _COLUMNS])
        except sqlite3.Error as error:  # locked by another program, a full disk
            raise NotTakenError(one_line(error)) from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _open(path: Path) -> sqlite3.Connection:
    # Each row is a transaction of its own.
    connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    _use_log(connection)
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute(_TABLE)
    connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM predictions LIMIT 0")  # of a table of somebody else's
    return connection


def _use_log(connection: sqlite3.Connection) -> None:
    """Write ahead into a log, or readers would wait for us, and we for them."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:  # SQLite does not wait here where two runs open a new file at once
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _value(value: Any) -> Any:
    if isinstance(value, list):
        return json.dumps(value)
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
