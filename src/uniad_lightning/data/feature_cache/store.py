"""Features of a frozen backbone, computed once: kept in files that runs and processes share, or in memory.

    CACHE/<key>/about.json           what the features depend on; the key is its digest
    CACHE/<key>/index.sqlite         signature of an image -> slot, checksum, mask
    CACHE/<key>/features-00000.bin   slots of (h, w, C) float16, as the tokens lie
    CACHE/<key>/held                 locked by each process that uses the store

An image's signature holds the path, size and modification time of its files, so a changed image is another one. Its
entry is written after its features, in one transaction. Damaged features and masks are found by their checksum and
computed again. The index assigns the slots, so that processes that fill one store at the same time write to different
places.
"""

import os
import shutil
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from uniad_lightning.data.feature_cache.encoding import to_half
from uniad_lightning.data.feature_cache.index import FREE_SLOT, Connection, may_be, prepare
from uniad_lightning.data.feature_cache.store_folder import INDEX, alone_in, digest, hold, shard_name, write_about
from uniad_lightning.errors import InputError, system_reason
from uniad_lightning.files.user_path import expand
from uniad_lightning.progress_bar import progress_bar

SHARD_BYTES = 1 << 30
SPARE_BYTES = 1 << 30  # that a cache leaves free on its disk
MOST_OPEN = 256  # shards
MISSING = -1
NO_ROOM = "the disk has no room for the features"


def _checksum(feature: np.ndarray, mask: bytes) -> int:
    """Of the features of an image and its mask; without a mask that of the features alone."""
    return zlib.crc32(mask, zlib.crc32(feature.data))


class StoreError(InputError):
    """Features cannot be kept in the cache; a run works without."""


class Store(Protocol):
    """Features of images by their signatures, each image in a slot."""

    def find(self, signatures: Sequence[bytes]) -> np.ndarray:
        """The slot of each image, (n,) int64; `MISSING` where there is none, or a damaged one."""

    def add(self, signatures: Sequence[bytes], features: Tensor, masks: Sequence[bytes]) -> None:
        """Keep the features (n, C, h, w) and packed masks of n images."""

    def features(self, slots: np.ndarray) -> Tensor:
        """Features in these slots, (n, C, h, w) float16, channels last in memory."""

    def mask(self, signature: bytes) -> bytes:
        """The packed mask of an image in the store."""

    def room_for(self, count: int) -> bool:
        """Whether the features of `count` more images can be kept."""


class MemoryStore:
    """Keeps features of `shape` (C, h, w) for as long as the process lives."""

    def __init__(self, *, shape: Sequence[int]) -> None:
        self._shape = (*shape[1:], shape[0])  # (h, w, C)
        self._slots: dict[bytes, int] = {}
        self._masks: dict[bytes, bytes] = {}
        self._kept: list[Tensor] = []

    def find(self, signatures: Sequence[bytes]) -> np.ndarray:
        """As in `Store`."""
        return np.array([self._slots.get(signature, MISSING) for signature in signatures], dtype=np.int64)

    def add(self, signatures: Sequence[bytes], features: Tensor, masks: Sequence[bytes]) -> None:
        """As in `Store`."""
        for signature, feature, mask in zip(signatures, to_half(features), masks, strict=True):
            self._slots[signature] = len(self._kept)
            self._masks[signature] = mask
            self._kept.append(feature.clone())

    def features(self, slots: np.ndarray) -> Tensor:
        """As in `Store`."""
        gathered = torch.empty((len(slots), *self._shape), dtype=torch.float16)
        for i, slot in enumerate(slots.tolist()):
            gathered[i] = self._kept[slot]
        return gathered.permute(0, 3, 1, 2)

    def mask(self, signature: bytes) -> bytes:
        """As in `Store`."""
        return self._masks[signature]

    def room_for(self, count: int) -> bool:
        """Always True: free memory is not checked."""
        return True


class DiskStore:
    """Keeps features in the folder of `cache` that belongs to `about`, the plain values that they depend on.

    `shape` is (C, h, w). The folder is held for as long as the store is in use, so that no other process removes it.
    Every method raises StoreError where the folder cannot be read or written, and `add` where the disk has no room.
    """

    def __init__(self, *, cache: Path, about: Mapping[str, Any], shape: Sequence[int]):
        try:
            self.cache = expand(cache)
        except InputError as error:  # no home folder for the default
            raise StoreError(f"data.cache_dir={error}") from error
        self.folder = self.cache / digest(about)
        self._shape = (*shape[1:], shape[0])  # (h, w, C)
        self._slot_bytes = 2 * int(np.prod(shape))
        self._per_shard = max(1, SHARD_BYTES // self._slot_bytes)
        self._shards: dict[int, FileIO] = {}
        self._lock = threading.Lock()  # a shard has one file position
        with self._as_store_errors():
            self._held = hold(self.folder)
            with alone_in(self.cache):
                write_about(self.folder, about, list(shape))
                prepare(self.folder / INDEX)

    def _connected(self) -> Connection:
        return Connection(self.folder / INDEX)

    @contextmanager
    def _as_store_errors(self) -> Iterator[None]:
        """Turns an error of the system or of the index into a StoreError."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"data.cache_dir={self.cache}: {system_reason(error)}") from error
        except (sqlite3.Error, UnicodeDecodeError, OverflowError) as error:
            raise StoreError(f"data.cache_dir={self.cache}: {self.folder / INDEX}: {error}") from error

    def find(self, signatures: Sequence[bytes]) -> np.ndarray:
        """As in `Store`; reads all features once to check them."""
        slots = np.full(len(signatures), MISSING, dtype=np.int64)
        query = "select slot, checksum, mask from entry where signature = ?"
        feature = np.empty(self._shape, dtype=np.float16)
        with self._as_store_errors():
            with self._connected() as index:
                index.execute("begin")  # one state of the index: another process may replace rows by later slots
                (end,) = index.execute("select next from slots").fetchone()
                rows = [index.execute(query, (signature,)).fetchone() for signature in signatures]
            known = [(i, *row) for i, row in enumerate(rows) if row and may_be(row[0], row[1], row[2], end)]
            for i, slot, checksum, mask in progress_bar("check features", known, leave=False, shown=None, delay=2):
                if self._read(slot, feature) and _checksum(feature, mask) == checksum:
                    slots[i] = slot
            os.utime(self.folder)  # when it was last used
        return slots

    def add(self, signatures: Sequence[bytes], features: Tensor, masks: Sequence[bytes]) -> None:
        """As in `Store`."""
        half = to_half(features).numpy()
        if not self.room_for(len(half)):
            raise StoreError(f"data.cache_dir={self.cache}: {NO_ROOM}")
        with self._as_store_errors():
            with self._connected() as index:
                index.execute("begin immediate")
                (first,) = index.execute(FREE_SLOT).fetchone()
                index.execute("update slots set next = ?", (first + len(half),))
            rows = []
            for slot, (signature, feature, mask) in enumerate(zip(signatures, half, masks, strict=True), start=first):
                self._write(slot, feature)
                rows.append((signature, slot, _checksum(feature, mask), mask))
            with self._connected() as index:
                index.executemany("insert or replace into entry values (?, ?, ?, ?)", rows)

    def features(self, slots: np.ndarray) -> Tensor:
        """As in `Store`."""
        gathered = np.empty((len(slots), *self._shape), dtype=np.float16)
        with self._as_store_errors():
            for feature, slot in zip(gathered, slots.tolist(), strict=True):
                if not self._read(slot, feature):
                    raise StoreError(f"data.cache_dir={self.cache}: files were truncated while they were in use")
        return torch.from_numpy(gathered).permute(0, 3, 1, 2)

    def mask(self, signature: bytes) -> bytes:
        """As in `Store`."""
        with self._as_store_errors(), self._connected() as index:
            return index.execute("select mask from entry where signature = ?", (signature,)).fetchone()[0]

    def bytes_of(self, count: int) -> int:
        """Size of the features of `count` images."""
        return count * self._slot_bytes

    def room_for(self, count: int) -> bool:
        """As in `Store`, with `SPARE_BYTES` left for everything else that writes to the disk."""
        with self._as_store_errors():
            return not count or self.bytes_of(count) + SPARE_BYTES < shutil.disk_usage(self.folder).free

    # Read and written, not mapped into memory: a mapped page that the disk cannot hold or read ends the process.

    def _read(self, slot: int, feature: np.ndarray) -> bool:
        """Read the (h, w, C) of one slot into `feature`; False where the file is too short."""
        with self._lock:
            return self._at(slot).readinto(feature.data) == self._slot_bytes

    def _write(self, slot: int, feature: np.ndarray) -> None:
        with self._lock:
            file, left = self._at(slot), feature.data.cast("B")
            while left:
                left = left[file.write(left) :]

    def _at(self, slot: int) -> FileIO:
        """The shard of a slot, at the slot's position; a missing file is created."""
        number, place = divmod(slot, self._per_shard)
        if number not in self._shards:
            if len(self._shards) >= MOST_OPEN:
                self._shards.pop(next(iter(self._shards))).close()
            path = self.folder / shard_name(number)
            path.touch()
            self._shards[number] = path.open("r+b", buffering=0)
        self._shards[number].seek(place * self._slot_bytes)
        return self._shards[number]
