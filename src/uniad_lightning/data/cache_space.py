"""What a feature cache takes on the disk, and its bound."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.data.feature_cache import ABOUT, INDEX, Connection
from uniad_lightning.home import expand


class StoreSummary(NamedTuple):
    """One store of a cache: its folder, the space and images it takes, when it was used, what it depends on."""

    folder: Path
    size: int  # bytes on disk
    images: int
    used: float  # seconds since 1970
    about: dict[str, Any]


def stores(cache: Path) -> list[StoreSummary]:
    """The stores in `cache`, the one used last first."""
    found = []
    for about in sorted(expand(cache).glob(f"*/{ABOUT}")):
        folder = about.parent
        size = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
        found.append(StoreSummary(folder, size, _count(folder), folder.stat().st_mtime, json.loads(about.read_text())))
    return sorted(found, key=lambda store: -store.used)


def _count(folder: Path) -> int:
    """The images of a store; 0 where its process died before it had an index, or that is damaged."""
    if not (folder / INDEX).is_file():  # a connection would make one
        return 0
    try:
        with Connection(folder / INDEX) as index:
            return index.execute("select count(*) from entry").fetchone()[0]
    except sqlite3.DatabaseError:
        return 0


def bound(cache: Path, most: int) -> list[StoreSummary]:
    """Delete the stores that were not used for the longest until the others take at most `most` bytes; what is gone."""
    gone, total = [], 0
    for store in stores(cache):
        total += store.size
        if total > most:
            shutil.rmtree(store.folder)
            gone.append(store)
            total -= store.size
    return gone
