"""Tiny data sets and odd picture files for the tests, written in a moment and the same every time."""

import pickle
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def mvtec_tree(
    root: Path,
    *,
    categories: Sequence[str] = ("bottle", "cable"),
    train: int = 4,
    good: int = 2,
    defects: Mapping[str, int] | None = None,
    size: tuple[int, int] = (32, 32),
    suffix: str = ".png",
    seed: int = 0,
) -> Path:
    """Writes the MVTec-AD layout below `root` and returns it.

    A good image is its category's colour gradient with faint noise; a defective one has a rectangle of the opposite
    colour as well, a quarter of each side long, which is the mask.

    Args:
        root: made when missing.
        categories: folders to write.
        train: good training images of each category.
        good: good test images of each category.
        defects: kinds of defect with their number of images in each category; `{"scratch": 2, "hole": 1}` if None.
        size: (height, width) of every image and mask.
        suffix: of the images, with its dot; masks are PNG.
        seed: of the noise and of where the defects are.
    """
    rng = np.random.default_rng(seed)
    for position, category in enumerate(categories):
        base = _gradient(position, size)
        for split, number in (("train", train), ("test", good)):
            for index in range(number):
                _write(root / category / split / "good" / f"{index:03d}{suffix}", _noisy(base, rng))
        for defect, number in ({"scratch": 2, "hole": 1} if defects is None else defects).items():
            for index in range(number):
                mask = _rectangle(size, rng)
                image = _noisy(np.where(mask[:, :, None], 255 - base, base), rng)
                _write(root / category / "test" / defect / f"{index:03d}{suffix}", image)
                truth = root / category / "ground_truth" / defect / f"{index:03d}_mask.png"
                _write(truth, mask.astype(np.uint8) * 255)
    return root


def _gradient(position: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float from dark to bright along both axes, in the colour of the category at `position`."""
    height, width = size
    slope = np.add.outer(np.linspace(20, 60, height), np.linspace(0, 40, width))
    colour = np.roll([1.0, 0.6, 0.3], position)
    return slope[:, :, None] * colour


def _noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image` with noise of 2 grey levels, as uint8."""
    return np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)


def _rectangle(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool, True in a rectangle a quarter of each side long, at least one pixel, somewhere inside."""
    height, width = (max(1, side // 4) for side in size)
    top, left = rng.integers(size[0] - height + 1), rng.integers(size[1] - width + 1)
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


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


def cifar10_arrays(count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (count, 3072) uint8, red then green then blue, and labels (count,) int64 that take turns."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), dtype=np.uint8), np.arange(count) % 10


def cifar10_python(root: Path, *, count: int = 20) -> Path:
    """Writes `cifar-10-batches-py` with `count` images a batch below `root` and returns `root`."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, (images, labels) in _cifar10_batches(count):
        (folder / name).write_bytes(pickle.dumps({"data": images, "labels": labels.tolist(), "batch_label": name}))
    return root


def cifar10_binary(root: Path, *, count: int = 20) -> Path:
    """Writes `cifar-10-batches-bin` with the same images and returns `root`."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, (images, labels) in _cifar10_batches(count):
        (folder / f"{name}.bin").write_bytes(np.column_stack([labels.astype(np.uint8), images]).tobytes())
    return root


def _cifar10_batches(count: int) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return [(name, cifar10_arrays(count, seed=seed)) for seed, name in enumerate(names)]


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
