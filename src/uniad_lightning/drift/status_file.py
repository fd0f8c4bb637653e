"""`drift.json` in a folder of results: the state of every product, for a watchdog and for people."""

import json
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from uniad_lightning.drift.monitor import DRIFT, OK, UNKNOWN, Monitor, Product
from uniad_lightning.errors import InputError
from uniad_lightning.files.atomic import write_whole
from uniad_lightning.files.json_file import read_object
from uniad_lightning.progress_bar import print_beside
from uniad_lightning.results.written_files import note

STATUS = "drift.json"
STATES = (OK, DRIFT, UNKNOWN)
_OFTEN = 1.0  # seconds between two writes, but for one at each change of a state


class StatusFile:
    """Keeps `drift.json` in `folder` as `monitor` has it, while rows come, and prints a line where a state changes.

    Rows that come before it is entered are those of earlier calls: they fill the windows, and nothing is said of them.
    With `resume` a state that goes on since an earlier call keeps the time of its beginning. The file is written as one
    whole; where it cannot be, as on a full disk, it is tried again with the next row.
    """

    def __init__(self, folder: Path, monitor: Monitor, *, resume: bool):
        self._path = folder / STATUS
        self._monitor = monitor
        self._resume = resume
        self._entered = False
        self._written = 0.0
        self._since: dict[str, tuple[str, str]] = {}  # by product its state and the time of its beginning

    def __enter__(self) -> "StatusFile":
        kept = read_status(self._path) if self._resume and self._path.is_file() else {"products": {}}
        self._since = {name: (own["state"], own["since"]) for name, own in kept["products"].items()}
        self._entered = True
        note(self._path)
        self._write()
        for line in self._monitor.warnings:
            print_beside(f"warning: {line}")
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the error or interrupt that ends the call is what matters
            self._write()

    def seen(self, row: dict[str, Any]) -> None:
        """Take in a row of `predictions.jsonl`; one of an image that failed says nothing."""
        if row["score"] is None:
            return
        change = self._monitor.add(row["category"], row["score"], familiar=row["familiar"])
        if not self._entered:
            return
        if change is not None and change.sentence:
            print_beside(f"drift: {change.sentence}; {self._path}")
        if change is not None or time.monotonic() - self._written >= _OFTEN:
            with suppress(OSError):
                self._write()

    def _write(self) -> None:
        products = {name: self._entry(own) for name, own in sorted(self._monitor.products.items())}
        content = {
            "state": self._monitor.state,
            "written": _now(),
            "drift_window": self._monitor.window,
            "drift_defects": self._monitor.defects,
            "products": products,
        }
        write_whole(self._path, f"{json.dumps(content, indent=2)}\n".encode())
        self._written = time.monotonic()

    def _entry(self, own: Product) -> dict[str, Any]:
        return {
            "state": own.state,
            "since": self._began(own.name, own.state),
            "why": own.why,
            "window": own.statistics()._asdict(),
            "calibration": None if own.baseline is None else own.baseline._asdict(),
            "limits": own.limits(),
        }

    def _began(self, name: str, state: str) -> str:
        before, since = self._since.get(name, ("", ""))
        if before != state:
            self._since[name] = state, _now()
        return self._since[name][1]


def read_status(path: Path) -> dict[str, Any]:
    """The content of a `drift.json`. Raises InputError for a file that is none."""
    remedy = "remove it; the next row of uniad predict writes another"
    found = read_object(path, remedy)
    products = found.get("products")
    own = [found, *products.values()] if isinstance(products, dict) else []
    if not own or not all(isinstance(entry, dict) and entry.get("state") in STATES for entry in own):
        raise InputError(f"{path}: says no state (one of {', '.join(STATES)}) of every product; {remedy}")
    if not all(isinstance(entry.get(key), str) for entry in own[1:] for key in ("since", "why")):
        raise InputError(f"{path}: a product has no time or no reason; {remedy}")
    return found


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
