"""Features of a frozen backbone, computed once: kept in files that runs and processes share, or in memory.

    CACHE/<key>/about.json           what the features depend on; the key is its digest
    CACHE/<key>/index.sqlite         signature of an image -> slot, checksum, mask
    CACHE/<key>/features-00000.bin   slots of (h, w, C) float16, as the tokens lie
    CACHE/<key>/held                 locked by each process that uses the store

An image's signature holds the path, size and modification time of its files, so a changed image is another one. Its
entry is written after its features, in one transaction; features that are damaged all the same are found by their
checksum and computed again. Slots are given out by the index, so that processes that fill one store at the same time
write to different places.
"""

import hashlib
import json
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
from tqdm import tqdm

from uniad_lightning.data.feature_cache.store_folder import INDEX, digest, hold, shard_name, write_about
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError, system_reason
from uniad_lightning.files.user_path import expand

SHARD_BYTES = 1 << 30
SPARE_BYTES = 1 << 30  # that a cache leaves free on its disk
MOST_OPEN = 256  # shards at the same time
MISSING = -1
NO_ROOM = "the disk has no room for the features"
_BUSY_SECONDS = 120  # what a process waits for another one's transaction
_TABLES = """
create table if not exists entry (signature blob primary key, slot integer, checksum integer, mask blob)
    without rowid;
create table if not exists slots (next integer);
insert into slots select 0 where not exists (select * from slots);
"""


class StoreError(InputError):
    """Features cannot be kept there; a run can do without."""


class Store(Protocol):
    """Where features are kept: of the images with these signatures, in slots."""

    def find(self, signatures: Sequence[bytes]) -> np.ndarray:
        """The slot of each image, (n,) int64, `MISSING` where there is none that is sound."""

    def add(self, signatures: Sequence[bytes], features: Tensor, masks: Sequence[bytes]) -> None:
        """Keep the features (n, C, h, w) and packed masks of n images."""

    def features(self, slots: np.ndarray) -> Tensor:
        """What is in these slots, (n, C, h, w) float16, channels last in memory."""

    def mask(self, signature: bytes) -> bytes:
        """The packed mask of an image that is kept."""

    def room_for(self, count: int) -> bool:
        """Whether the features of so many more images can be kept."""


class MemoryStore:
    """Keeps features of `shape` (C, h, w) for as long as the process lives."""

    def __init__(self, *, shape: Sequence[int]) -> None:
        self._shape = (*shape[1:], shape[0])  # (h, w, C)
        self._slots: dict[bytes, int] = {}
        self._masks: dict[bytes, bytes] = {}
        self._kept: list[Tensor] = []

    def find(self, signatures: Sequence[bytes]) -> np.ndarray:
        """As `Store` says."""
        return np.array([self._slots.get(signature, MISSING) for signature in signatures], dtype=np.int64)

    def add(self, signatures: Sequence[bytes], features: Tensor, masks: Sequence[bytes]) -> None:
        """As `Store` says."""
        for signature, feature, mask in zip(signatures, to_half(features), masks, strict=True):
            self._slots[signature] = len(self._kept)
            self._masks[signature] = mask
            self._kept.append(feature.clone())

    def features(self, slots: np.ndarray) -> Tensor:
        """As `Store` says."""
        gathered = torch.empty((len(slots), *self._shape), dtype=torch.float16)
        for i, slot in enumerate(slots.tolist()):
            gathered[i] = self._kept[slot]
        return gathered.permute(0, 3, 1, 2)

    def mask(self, signature: bytes) -> bytes:
        """As `Store` says."""
        return self._masks[signature]

    def room_for(self, count: int) -> bool:
        """As `Store` says; the system's memory is not asked."""
        return True


class DiskStore:
    """Keeps features in the folder that `about`, plain values that they depend on, has in `cache`.

    `shape` is (C, h, w). The folder is held for as long as the store is in use, so that no other process removes it.
    Everything raises StoreError where the folder cannot be read or written, and `add` where the disk has no room.
    """

    def __init__(self, *, cache: Path, about: Mapping[str, Any], shape: Sequence[int]):
        try:
            self.cache = expand(cache)
        except InputError as error:  # no home folder, in which the default lies
            raise StoreError(f"data.cache_dir={error}") from error
        self.folder = self.cache / digest(about)
        self._shape = (*shape[1:], shape[0])  # (h, w, C)
        self._slot_bytes = 2 * int(np.prod(shape))
        self._per_shard = max(1, SHARD_BYTES // self._slot_bytes)
        self._shards: dict[int, FileIO] = {}
        self._alone = threading.Lock()  # a shard has one position
        with self._explained():
            self._held = hold(self.folder)
            write_about(self.folder, about, list(shape))
            self._prepare()

    def _prepare(self) -> None:
        """Make the tables; an index that cannot be read is no loss that cannot be computed again."""
        try:
            with self._connected() as index:
                index.executescript(_TABLES)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            (self.folder / INDEX).unlink()
            with self._connected() as index:
                index.executescript(_TABLES)

    def _connected(self) -> "Connection":
        return Connection(self.folder / INDEX)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """An error of the system or of the index within, as a StoreError."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"data.cache_dir={self.cache}: {system_reason(error)}") from error
        except sqlite3.Error as error:
            raise StoreError(f"data.cache_dir={self.cache}: {self.folder / INDEX}: {error}") from error

    def find(self, signatures: Sequence[bytes]) -> np.ndarray:
        """As `Store` says; reads what it finds once, to see that it is sound."""
        slots = np.full(len(signatures), MISSING, dtype=np.int64)
        query = "select slot, checksum from entry where signature = ?"
        feature = np.empty(self._shape, dtype=np.float16)
        with self._explained():
            with self._connected() as index:
                rows = [index.execute(query, (signature,)).fetchone() for signature in signatures]
            known = [(i, *row) for i, row in enumerate(rows) if row]
            for i, slot, checksum in tqdm(known, "check features", unit="image", leave=False, disable=None, delay=2):
                if self._read(slot, feature) and zlib.crc32(feature.data) == checksum:
                    slots[i] = slot
            os.utime(self.folder)  # when it was last used
        return slots

    def add(self, signatures: Sequence[bytes], features: Tensor, masks: Sequence[bytes]) -> None:
        """As `Store` says."""
        half = to_half(features).numpy()
        if not self.room_for(len(half)):
            raise StoreError(f"data.cache_dir={self.cache}: {NO_ROOM}")
        with self._explained():
            with self._connected() as index:
                index.execute("begin immediate")
                (first,) = index.execute("select next from slots").fetchone()
                index.execute("update slots set next = ?", (first + len(half),))
            rows = []
            for slot, (signature, feature, mask) in enumerate(zip(signatures, half, masks, strict=True), start=first):
                self._write(slot, feature)
                rows.append((signature, slot, zlib.crc32(feature.data), mask))
            with self._connected() as index:
                index.executemany("insert or replace into entry values (?, ?, ?, ?)", rows)

    def features(self, slots: np.ndarray) -> Tensor:
        """As `Store` says."""
        gathered = np.empty((len(slots), *self._shape), dtype=np.float16)
        with self._explained():
            for feature, slot in zip(gathered, slots.tolist(), strict=True):
                if not self._read(slot, feature):
                    raise StoreError(f"data.cache_dir={self.cache}: files were cut while they were in use")
        return torch.from_numpy(gathered).permute(0, 3, 1, 2)

    def mask(self, signature: bytes) -> bytes:
        """As `Store` says."""
        with self._explained(), self._connected() as index:
            return index.execute("select mask from entry where signature = ?", (signature,)).fetchone()[0]

    def bytes_of(self, count: int) -> int:
        """What the features of so many images take."""
        return count * self._slot_bytes

    def room_for(self, count: int) -> bool:
        """As `Store` says: with `SPARE_BYTES` left for everything else that writes to the disk."""
        with self._explained():
            return not count or self.bytes_of(count) + SPARE_BYTES < shutil.disk_usage(self.folder).free

    # Read and written, not mapped into memory: a mapped page that the disk cannot hold or read ends the process.

    def _read(self, slot: int, feature: np.ndarray) -> bool:
        """Read the (h, w, C) of one slot into `feature`; whether all of it was there."""
        with self._alone:
            return self._at(slot).readinto(feature.data) == self._slot_bytes

    def _write(self, slot: int, feature: np.ndarray) -> None:
        with self._alone:
            file, left = self._at(slot), feature.data.cast("B")
            while left:
                left = left[file.write(left) :]

    def _at(self, slot: int) -> FileIO:
        """The shard of a slot, made where it is not there, at the slot's position."""
        number, place = divmod(slot, self._per_shard)
        if number not in self._shards:
            if len(self._shards) >= MOST_OPEN:
                self._shards.pop(next(iter(self._shards))).close()
            path = self.folder / shard_name(number)
            path.touch()
            self._shards[number] = path.open("r+b", buffering=0)
        self._shards[number].seek(place * self._slot_bytes)
        return self._shards[number]


class Connection:
    """A connection to the index for one transaction, committed at the end; none is kept over a fork."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        self._index = sqlite3.connect(self._path, timeout=_BUSY_SECONDS)
        return self._index

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._index.commit()
        finally:
            self._index.close()


def signatures(records: Sequence[Record]) -> list[bytes]:
    """For each record what tells its image and masks from any others, 16 bytes."""
    seen: dict[Path, tuple[str, int, int]] = {}

    def state(path: Path) -> tuple[str, int, int]:
        if path not in seen:
            try:
                found = path.stat()
            except OSError:
                raise InputError(f"{path}: no such file; expected a picture") from None
            seen[path] = (str(path.absolute()), found.st_size, found.st_mtime_ns)
        return seen[path]

    def signature(record: Record) -> bytes:
        file, place = record.image if isinstance(record.image, Packed) else (record.image, 0)
        parts = [*state(file), place, *(part for path in record.masks for part in state(path))]
        parts += [] if record.tile is None else [f"tile {record.tile}"]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()

    return [signature(record) for record in records]


def to_half(features: Tensor) -> Tensor:
    """`features` (n, C, h, w) as (n, h, w, C) float16 on the CPU; InputError for values it does not reach (65504)."""
    half = features.detach().permute(0, 2, 3, 1).to(torch.float16).cpu().contiguous()
    if not half.isfinite().all():
        raise InputError("data.cache: features beyond the range of float16; use data.cache=off with this backbone")
    return half


def pack_mask(mask: np.ndarray) -> bytes:
    """The (H, W) bool mask in few bytes; none where it is empty."""
    return zlib.compress(np.packbits(mask).tobytes(), 1) if mask.any() else b""


def unpack_mask(packed: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of `pack_mask`."""
    if not packed:
        return np.zeros(size, dtype=bool)
    bits = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
    return np.unpackbits(bits, count=size[0] * size[1]).reshape(size).astype(bool)
