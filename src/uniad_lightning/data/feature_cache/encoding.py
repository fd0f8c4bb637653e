"""How a store keeps an image: its signature, its features in half precision, and its mask compressed."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError
from uniad_lightning.files.mask_bits import compress_mask, decompress_mask


def signatures(records: Sequence[Record]) -> list[bytes]:
    """16 bytes for each record that identify its image and masks; InputError for a file that does not exist."""
    states: dict[Path, tuple[str, int, int]] = {}

    def state(path: Path) -> tuple[str, int, int]:
        if path not in states:
            try:
                status = path.stat()
            except OSError:
                raise InputError(f"{path}: no such file; expected an image") from None
            states[path] = (str(path.absolute()), status.st_size, status.st_mtime_ns)
        return states[path]

    def signature(record: Record) -> bytes:
        file, place = record.image if isinstance(record.image, Packed) else (record.image, 0)
        parts = [*state(file), place, *(part for path in record.masks for part in state(path))]
        parts += [] if record.tile is None else [f"tile {record.tile}"]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).digest()

    return [signature(record) for record in records]


def to_half(features: Tensor) -> Tensor:
    """`features` (n, C, h, w) as (n, h, w, C) float16 on the CPU; InputError for values beyond its range (65504)."""
    half = features.detach().permute(0, 2, 3, 1).to(torch.float16).cpu().contiguous()
    if not half.isfinite().all():
        raise InputError("data.cache: features beyond the range of float16; use data.cache=off with this backbone")
    return half


def pack_mask(mask: np.ndarray) -> bytes:
    """The (H, W) bool mask compressed; b"" where it is empty."""
    return compress_mask(mask) if mask.any() else b""


def unpack_mask(packed: bytes, size: tuple[int, int]) -> np.ndarray:
    """The mask (H, W) bool of `pack_mask`."""
    return decompress_mask(packed, size) if packed else np.zeros(size, dtype=bool)
