"""The size of a feature cache on the disk, and its limit."""

import gc
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.data.feature_cache.store import NO_ROOM, SPARE_BYTES, Connection, DiskStore, StoreError
from uniad_lightning.data.feature_cache.store_folder import INDEX, is_store, read_about, remove_unheld
from uniad_lightning.files.user_path import expand

SHARE_OF_DISK = 0.1  # that a cache may take by default


class StoreSummary(NamedTuple):
    """One store of a cache."""

    folder: Path
    size: int  # bytes on disk
    images: int
    used: float  # last time, in seconds since 1970
    about: dict[str, Any]  # what the features depend on; empty where about.json is damaged


def stores(cache: Path) -> list[StoreSummary]:
    """The stores in `cache`, the one used last first; other files there are ignored."""
    summaries = []
    for folder in sorted(expand(cache).glob("*")):
        with suppress(FileNotFoundError):  # another process has just removed it
            if is_store(folder):
                used = folder.stat().st_mtime
                summaries.append(StoreSummary(folder, _size(folder), _count(folder), used, read_about(folder) or {}))
    return sorted(summaries, key=lambda store: -store.used)


def _size(folder: Path) -> int:
    files = (path.stat() for path in folder.iterdir())
    return sum(getattr(one, "st_blocks", -(-one.st_size // 512)) * 512 for one in files)  # Windows counts no blocks


def _count(folder: Path) -> int:
    """The images of a store; 0 where the index is missing, after a crash, or damaged."""
    if not (folder / INDEX).is_file():  # a connection would create one
        return 0
    try:
        with Connection(folder / INDEX) as index:
            return index.execute("select count(*) from entry").fetchone()[0]
    except sqlite3.DatabaseError:
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


def make_room(store: DiskStore, count: int, most: int | None) -> None:
    """Delete other stores until the features of `count` more images have room in the cache and on the disk.

    `most` is the limit of the whole cache in bytes, None for a tenth of the disk. Raises StoreError where there is
    still no room.
    """
    if not count:
        return
    disk, needed = shutil.disk_usage(store.folder), store.bytes_of(count)
    most = int(SHARE_OF_DISK * disk.total) if most is None else most
    if _size(store.folder) + needed > most:
        size = f"the features of {count} images take {needed / 1e9:.3g} GB and the limit is {most / 1e9:.3g} GB"
        raise StoreError(f"data.cache_dir={store.cache}: {size}; data.cache_size=... allows more")
    kept = sum(other.size for other in stores(store.cache))
    lacking = max(kept + needed - most, needed + SPARE_BYTES - disk.free)
    if lacking > 0:
        bound(store.cache, kept - lacking)
        if sum(other.size for other in stores(store.cache)) + needed > most:
            raise StoreError(
                f"data.cache_dir={store.cache}: what other runs use leaves no room; data.cache_size=... allows more"
            )
    if not store.room_for(count):
        raise StoreError(f"data.cache_dir={store.cache}: {NO_ROOM}")
