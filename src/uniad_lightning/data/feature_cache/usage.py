"""What a feature cache takes on the disk, and its bound."""

import gc
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.data.feature_cache.store import NO_ROOM, SPARE_BYTES, Connection, DiskStore, StoreError
from uniad_lightning.data.feature_cache.store_folder import INDEX, is_store, read_about, remove_unheld
from uniad_lightning.files.user_path import expand

SHARE_OF_DISK = 0.1  # that a cache may take where nothing else is said


class StoreSummary(NamedTuple):
    """One store of a cache: its folder, the space and images it takes, when it was used, what it depends on."""

    folder: Path
    size: int  # bytes on disk
    images: int
    used: float  # seconds since 1970
    about: dict[str, Any]  # empty where that is damaged


def stores(cache: Path) -> list[StoreSummary]:
    """The stores in `cache`, the one used last first; what else lies there is none of the cache's."""
    found = []
    for folder in sorted(expand(cache).glob("*")):
        with suppress(FileNotFoundError):  # another process has just removed it
            if is_store(folder):
                used = folder.stat().st_mtime
                found.append(StoreSummary(folder, _size(folder), _count(folder), used, read_about(folder) or {}))
    return sorted(found, key=lambda store: -store.used)


def _size(folder: Path) -> int:
    found = (path.stat() for path in folder.iterdir())
    return sum(getattr(one, "st_blocks", -(-one.st_size // 512)) * 512 for one in found)  # Windows counts no blocks


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
    """Delete the stores that were not used for the longest until the others take at most `most` bytes; what is gone.

    A store that a process holds is left.
    """
    gc.collect()  # a store that nothing refers to any more holds its folder until then
    found = stores(cache)
    gone, total = [], sum(store.size for store in found)
    for store in reversed(found):
        if total > most and remove_unheld(store.folder):
            gone.append(store)
            total -= store.size
    return gone


def make_room(store: DiskStore, count: int, most: int | None) -> None:
    """Delete what other stores keep until the features of `count` more images have room in the cache and on the disk.

    `most` bytes are the bound of the whole cache, a tenth of the disk where it is None. Raises StoreError where there
    is no room all the same.
    """
    if not count:
        return
    disk, needed = shutil.disk_usage(store.folder), store.bytes_of(count)
    most = int(SHARE_OF_DISK * disk.total) if most is None else most
    if _size(store.folder) + needed > most:
        size = f"the features of {count} images take {needed / 1e9:.3g} GB and the bound is {most / 1e9:.3g} GB"
        raise StoreError(f"data.cache_dir={store.cache}: {size}; data.cache_size=... allows more")
    kept = sum(other.size for other in stores(store.cache))
    lacking = max(kept + needed - most, needed + SPARE_BYTES - disk.free)
    if lacking > 0:
        bound(store.cache, kept - lacking)
        if sum(other.size for other in stores(store.cache)) + needed > most:
            raise StoreError(f"data.cache_dir={store.cache}: what other runs use leaves no room; data.cache_size=...")
    if not store.room_for(count):
        raise StoreError(f"data.cache_dir={store.cache}: {NO_ROOM}")
