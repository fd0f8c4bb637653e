"""The stores of a feature cache, their sizes, and deleting the oldest.

Imports nothing heavy, so that `uniad cache` answers at once.
"""

import gc
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.data.feature_cache.index import Connection
from uniad_lightning.data.feature_cache.store_folder import INDEX, alone_in, is_store, read_about, remove_unheld
from uniad_lightning.files.user_path import expand


class StoreSummary(NamedTuple):
    """One store of a cache."""

    folder: Path
    size: int  # bytes on disk
    images: int
    used: float  # last time, in seconds since 1970
    about: dict[str, Any]  # what the features depend on; empty where about.json is damaged


def stores(cache: Path) -> list[StoreSummary]:
    """The stores in `cache`, the one used last first; other files there are ignored."""
    summaries, cache = [], expand(cache)
    for folder in sorted(cache.glob("*")):
        with suppress(FileNotFoundError), alone_in(cache):  # another process has just removed it
            if is_store(folder):
                used = folder.stat().st_mtime
                summaries.append(StoreSummary(folder, size_of(folder), _count(folder), used, read_about(folder) or {}))
    return sorted(summaries, key=lambda store: -store.used)


def size_of(folder: Path) -> int:
    """The bytes that the files of a folder take on the disk."""
    size = 0
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # a journal, or a temporary file that another process has just renamed
            one = path.stat()
            size += getattr(one, "st_blocks", -(-one.st_size // 512)) * 512  # Windows counts no blocks
    return size


def _count(folder: Path) -> int:
    """The images of a store; 0 where the index is missing, after a crash, or damaged."""
    try:
        with Connection(folder / INDEX) as index:
            return index.execute("select count(*) from entry").fetchone()[0]
    except (sqlite3.DatabaseError, ValueError, TypeError):  # the last two of damaged texts and tables
        return 0


def bound(cache: Path, most: int) -> list[StoreSummary]:
    """Delete the least recently used stores until the others take at most `most` bytes; returns the deleted ones.

    A store that a process holds is kept.
    """
    gc.collect()  # closes unreferenced stores, which hold their folders until then
    existing = stores(cache)
    deleted, total = [], sum(store.size for store in existing)
    for store in reversed(existing):
        if total > most and remove_unheld(store.folder):
            deleted.append(store)
            total -= store.size
    return deleted
