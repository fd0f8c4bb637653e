"""Up to which row each sink has taken the rows of a folder of results, kept in a file there."""

import json
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from uuid import uuid4

from uniad_lightning.errors import InputError
from uniad_lightning.files.atomic import write_whole
from uniad_lightning.files.json_file import read_object
from uniad_lightning.prediction.rows import Row
from uniad_lightning.results.written_files import note

POSITIONS = "predictions.sinks.json"
_OFTEN = 1.0  # seconds between two writes: a killed call delivers the rows of so long twice


class Positions:
    """The id of the last row that each sink has taken, by its shown name; safe to use from several threads.

    Rows are known by their ids and not by their number, since `resume=true` takes rows out of the journal.
    Raises InputError for a damaged file.
    """

    def __init__(self, folder: Path, *, resume: bool):
        self._path = folder / POSITIONS
        self._lock = threading.Lock()
        self._written = 0.0
        kept = read_object(self._path, "restore it, or choose another output_dir") if self._is_kept(resume) else {}
        self._run = kept.get("run", uuid4().hex)
        self._last = kept.get("last", {})
        if not isinstance(self._run, str) or not isinstance(self._last, dict):
            raise InputError(f"{self._path}: is damaged; restore it, or choose another output_dir")
        note(self._path)
        self._write()

    def id_of(self, row: Row) -> str:
        """The id of a row by its fields, in any order, since `resume=true` may write its line anew."""
        fields = json.dumps(row, sort_keys=True).encode()
        return blake2b(fields, key=self._run.encode()[:64], digest_size=16).hexdigest()

    def last(self, sink: str) -> str | None:
        """The id of the last row that a sink has taken; None where it has none."""
        with self._lock:
            return self._last.get(sink)

    def take(self, sink: str, row_id: str) -> None:
        """Remember that a sink has taken a row and all before it."""
        with self._lock:
            self._last[sink] = row_id
            if time.monotonic() - self._written >= _OFTEN:
                with suppress(OSError):  # a full disk ends the call elsewhere; here rows are delivered again
                    self._write()

    def save(self) -> None:
        """Write all of it."""
        with self._lock, suppress(OSError):
            self._write()

    def _is_kept(self, resume: bool) -> bool:
        return resume and self._path.is_file()

    def _write(self) -> None:
        write_whole(self._path, json.dumps({"run": self._run, "last": self._last}, indent=2).encode())
        self._written = time.monotonic()
