"""Masks kept as bits: an eighth of their size, and compressed a few hundred bytes."""

import zlib
from collections.abc import Sequence

import numpy as np


def compress_mask(mask: np.ndarray) -> bytes:
    """The (H, W) bool mask, its bits compressed."""
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def decompress_mask(compressed: bytes, size: Sequence[int]) -> np.ndarray:
    """The mask (H, W) bool of `compress_mask`."""
    return unpack_mask(np.frombuffer(zlib.decompress(compressed), dtype=np.uint8), size)


def unpack_mask(bits: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The mask (H, W) bool of the bytes of `np.packbits`."""
    height, width = size
    return np.unpackbits(bits, count=height * width).reshape(height, width).view(np.bool_)
