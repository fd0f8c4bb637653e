"""Features of a frozen backbone, computed once: kept in files that runs and processes share, or in memory.

    CACHE/<key>/about.json           what the features depend on; the key is its digest
    CACHE/<key>/index.sqlite         signature of an image -> slot, checksum, mask
    CACHE/<key>/features-00000.bin   slots of (h, w, C) float16, mapped into memory; as the tokens lie

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
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError
from uniad_lightning.home import expand

SHARD_BYTES = 1 << 30
MISSING = -1
INDEX, ABOUT = "index.sqlite", "about.json"
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

    `shape` is (C, h, w). Raises StoreError when the folder cannot be written.
    """

    def __init__(self, *, cache: Path, about: Mapping[str, Any], shape: Sequence[int]):
        try:
            self.folder = expand(cache) / digest(about)
        except InputError as error:  # no home folder, in which the default lies
            raise StoreError(f"data.cache_dir={error}") from error
        self._shape = (*shape[1:], shape[0])  # (h, w, C)
        self._slot_bytes = 2 * int(np.prod(shape))
        self._per_shard = max(1, SHARD_BYTES // self._slot_bytes)
        self._shards: dict[int, np.memmap] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ABOUT).write_text(json.dumps({**about, "shape": list(shape)}, indent=2) + "\n")
        except OSError as error:
            raise StoreError(f"data.cache_dir={cache}: {error.strerror}") from error
        self._prepare()

    def _prepare(self) -> None:
        """Make the tables; an index that cannot be read is no loss that cannot be computed again."""
        try:
            with self._connected() as index:
                index.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StoreError(f"{self.folder / INDEX}: {error}") from error
            (self.folder / INDEX).unlink()
            with self._connected() as index:
                index.executescript(_TABLES)

    def _connected(self) -> "Connection":
        return Connection(self.folder / INDEX)

    def find(self, signatures: Sequence[bytes]) -> np.ndarray:
        """As `Store` says; reads what it finds once, to see that it is sound."""
        slots = np.full(len(signatures), MISSING, dtype=np.int64)
        query = "select slot, checksum from entry where signature = ?"
        with self._connected() as index:
            rows = [index.execute(query, (signature,)).fetchone() for signature in signatures]
        known = [(i, *row) for i, row in enumerate(rows) if row]
        for i, slot, checksum in tqdm(known, "check features", unit="image", leave=False, disable=None, delay=2):
            if zlib.crc32(self._slot(slot).data) == checksum:
                slots[i] = slot
        os.utime(self.folder)  # when it was last used
        return slots

    def add(self, signatures: Sequence[bytes], features: Tensor, masks: Sequence[bytes]) -> None:
        """As `Store` says."""
        half = to_half(features).numpy()
        with self._connected() as index:
            index.execute("begin immediate")
            (first,) = index.execute("select next from slots").fetchone()
            index.execute("update slots set next = ?", (first + len(half),))
        rows = []
        for slot, (signature, feature, mask) in enumerate(zip(signatures, half, masks, strict=True), start=first):
            self._slot(slot)[:] = feature
            rows.append((signature, slot, zlib.crc32(feature), mask))
        with self._connected() as index:
            index.executemany("insert or replace into entry values (?, ?, ?, ?)", rows)

    def features(self, slots: np.ndarray) -> Tensor:
        """As `Store` says."""
        gathered = np.empty((len(slots), *self._shape), dtype=np.float16)
        for i, slot in enumerate(slots.tolist()):
            gathered[i] = self._slot(slot)
        return torch.from_numpy(gathered).permute(0, 3, 1, 2)

    def mask(self, signature: bytes) -> bytes:
        """As `Store` says."""
        with self._connected() as index:
            return index.execute("select mask from entry where signature = ?", (signature,)).fetchone()[0]

    def room_for(self, count: int) -> bool:
        """As `Store` says: with a GB to spare, since a mapped file that finds no space ends the process."""
        return not count or count * self._slot_bytes + SHARD_BYTES < shutil.disk_usage(self.folder).free

    def _slot(self, slot: int) -> np.ndarray:
        """The (h, w, C) of one slot, mapped; its file is made, or mended, as long as it has to be."""
        number, place = divmod(slot, self._per_shard)
        if number not in self._shards:
            path = self.folder / f"features-{number:05d}.bin"
            with path.open("ab") as file:
                file.truncate(self._per_shard * self._slot_bytes)  # a hole in the file, no space
            self._shards[number] = np.memmap(path, np.float16, "r+", shape=(self._per_shard, *self._shape))
        return self._shards[number][place]


class Connection:
    """A connection to the index for one transaction, committed at the end; none is kept over a fork."""

    def __init__(self, path: Path):
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        self._index = sqlite3.connect(self._path, timeout=_BUSY_SECONDS)
        return self._index

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._index.commit()
        self._index.close()


def digest(about: Mapping[str, Any]) -> str:
    """A name for a set of plain values."""
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=12).hexdigest()


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
