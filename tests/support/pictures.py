"""Odd picture files, and bytes of files damaged in many ways."""

import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

needs_pillow_13 = pytest.mark.skipif(
    int(PIL.__version__.partition(".")[0]) < 13, reason="older Pillow opens no grey TIFF with premultiplied opacity"
)


def saved(path: Path, pixels: np.ndarray | Image.Image, **options: object) -> Path:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def header_only(path: Path, width: int, height: int) -> Path:
    """A PNG that says a size and ends after a few of its bytes."""
    whole = saved(path, np.zeros((4, 4), dtype=np.uint8)).read_bytes()
    size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(whole[:12] + size + struct.pack(">I", zlib.crc32(size)) + whole[33:])
    return path


def png(path: Path, data: bytes, *, size: tuple[int, int], depth: int, colour: int) -> Path:
    """A PNG of any bit depth and colour type, which Pillow does not all write; `data` = packed rows, big-endian."""
    height, width = size
    stride = len(data) // height
    rows = b"".join(b"\0" + data[start : start + stride] for start in range(0, len(data), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    )
    return path


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def tiff(path: Path, data: bytes, *, size: tuple[int, int], depth: int) -> Path:
    """A grey TIFF of any bit depth, which Pillow does not all write; `data` = packed rows."""
    height, width = size
    header = 8
    data = data + b"\0" * (len(data) % 2)  # the table of tags is on an even byte
    # Width, height, bits, uncompressed, black is zero, start of data, one sample, rows per strip, bytes of data.
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: 1, 273: header, 277: 1, 278: height, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    table = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, header + len(data)) + data + table)
    return path


def channels_tiff(
    path: Path, pixels: np.ndarray, *, extra: int | None = None, planes: bool = False, deflate: bool = False
) -> Path:
    """A TIFF of `pixels` (H, W, C), uint8 or uint16: grey for two channels, else RGB; which Pillow does not all write.

    `extra` says what the last channel is (1: premultiplied opacity, 2: opacity), `planes` puts each channel by itself.
    """
    height, width, count = pixels.shape
    parts = [pixels[..., channel] for channel in range(count)] if planes else [pixels]
    packed = [zlib.compress(part.tobytes()) if deflate else part.tobytes() for part in parts]
    lengths = [len(part) + len(part) % 2 for part in packed]  # what follows is on an even byte
    starts = [8 + sum(lengths[:i]) for i in range(len(packed))]
    tags = {
        256: [width], 257: [height], 258: [8 * pixels.itemsize] * count, 259: [8 if deflate else 1],
        262: [1 if count == 2 else 2], 273: starts, 277: [count], 278: [height], 279: [len(part) for part in packed],
        284: [2 if planes else 1], **({} if extra is None else {338: [extra]}),
    }  # fmt: skip
    data = b"".join(part.ljust(length, b"\0") for part, length in zip(packed, lengths, strict=True))
    entries = b""
    for tag, values in tags.items():
        kind, form = (4, "I") if tag in (256, 257, 273, 278, 279) else (3, "H")
        raw = struct.pack(f"<{len(values)}{form}", *values)
        if len(raw) > 4:  # beside the table; its place in the entry
            place = struct.pack("<I", 8 + len(data))
            data += raw.ljust(len(raw) + len(raw) % 2, b"\0")
            raw = place
        entries += struct.pack("<HHI", tag, kind, len(values)) + raw.ljust(4, b"\0")
    table = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + table)
    return path


def damaged(content, count, seed=0):
    """`count` copies of the bytes of a file, each damaged in another way, a third of them near its beginning or end."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        place = int(rng.integers(len(content)))
        if i % 3 == 0:
            near = int(rng.integers(min(2000, len(content))))
            place = near if i % 2 else len(content) - 1 - near
        before, one, after = content[:place], content[place], content[place + 1 :]
        many = np.frombuffer(content, np.uint8).copy()
        many[rng.integers(len(content), size=64)] ^= 255
        changed = (
            before + bytes([one ^ 1 << int(rng.integers(8))]) + after,
            before + bytes([one ^ int(rng.integers(1, 256))]) + after,
            many.tobytes(),
            before + bytes(min(512, len(after) + 1)) + after[511:],
            before,
            before + bytes([7, one]) + after,
            before + after,
        )[i % 7]
        if changed != content:
            yield changed
