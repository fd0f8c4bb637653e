"""Checks before a training that the files of a data set can be used, with one error for all that cannot.

Headers and ends of files are read, a fraction of a millisecond each. A file that looks damaged, and a mask whose size
may not be its image's, is then decoded, which decides. Damage in the middle of a file is not found.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import BinaryIO, cast

from PIL import Image

from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.decoding import DATA_SET_PIXELS, read_image, read_marks, read_mask
from uniad_lightning.data.images.image_file import opened
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.progress_bar import progress_bar

SHOWN = 20  # files that the message names
_THREADS = 8
_BAR_DELAY = 2.0  # seconds before a progress bar appears
_DECODING = Semaphore(2)  # an image may take 500 MB
_COMPRESSION, _JPEG = 259, 7
_TIFF_PARTS = ((273, 279), (324, 325))  # tags of starts and lengths: strips, tiles
_END = 64  # bytes: cameras and editors leave some after a JPEG's end marker
_ORIENTATION, _TURNED = 274, (5, 6, 7, 8)  # EXIF


def check_files(records: Iterable[Record], channels: Channels | None = None) -> None:
    """Raises InputError that names the images and masks that cannot be used, up to 20 of them, and their number."""
    Image.init()  # before threads do
    _refuse(records, lambda record: _faults(record, channels) if _is_suspicious(record) else [], label="files")


def decode_all(records: Iterable[Record], channels: Channels | None = None) -> None:
    """As `check_files`, but decodes all files: for use after one could not be read."""
    _refuse(records, partial(_faults, channels=channels), label="check all files")


def undecodable(records: Sequence[Record], channels: Channels | None = None) -> dict[Path, str]:
    """The images of `records` that cannot be decoded, each with the message; all are decoded.

    Raises TemporaryError where the system is at fault: the image may be read the next time.
    """
    distinct = list(dict.fromkeys(record.image for record in records if isinstance(record.image, Path)))
    with ThreadPoolExecutor(_THREADS) as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bar = progress_bar(
            "check train images",
            threads.map(partial(_fault, channels=channels), distinct),
            total=len(distinct),
            leave=False,
        )
        return {path: message for path, message in zip(distinct, bar, strict=True) if message}


def _fault(path: Path, channels: Channels | None) -> str:
    try:
        with _DECODING:
            read_image(path, max_pixels=DATA_SET_PIXELS, channels=channels)
    except TemporaryError:
        raise
    except InputError as error:
        return str(error)
    return ""


def _refuse(records: Iterable[Record], check: Callable[[Record], Sequence[str]], *, label: str) -> None:
    distinct = list({record.image: record for record in records if not isinstance(record.image, Packed)}.values())
    with ThreadPoolExecutor(_THREADS) as threads, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of damage, which is an error below
        checked = threads.map(check, distinct)
        bar = progress_bar(label, checked, total=len(distinct), delay=_BAR_DELAY, leave=False)
        messages = list(dict.fromkeys(fault for faults in bar for fault in faults))
    if len(messages) == 1:
        raise InputError(messages[0])
    if messages:
        more = f"; and {len(messages) - SHOWN} more" if len(messages) > SHOWN else ""
        raise InputError(f"{len(messages)} files cannot be used: {'; '.join(messages[:SHOWN])}{more}")


def _faults(record: Record, channels: Channels | None) -> list[str]:
    """Messages on the image and the masks of a record that cannot be used."""
    messages: list[str] = []
    size = None
    with _DECODING:
        try:
            size = read_image(record.image, max_pixels=DATA_SET_PIXELS, channels=channels).shape[:2]
        except InputError as error:
            messages.append(str(error))
        for mask in record.masks:
            try:
                read_marks(mask) if size is None else read_mask(mask, image_path=record.image, image_size=size)
            except InputError as error:
                messages.append(str(error))
    return messages


def _files(record: Record) -> list[Path]:
    return [path for path in (record.image, *record.masks) if isinstance(path, Path)]


def _is_suspicious(record: Record) -> bool:
    """Whether any file of a record may be damaged, or a mask of another size than the image."""
    sizes = set()
    try:
        for path in _files(record):
            with opened(path, DATA_SET_PIXELS) as image:
                if not _is_whole(image):
                    return True
                if record.masks and _may_be_turned(image):
                    return True
                sizes.add(image.size)
    except InputError:
        return True
    return len(sizes) > 1


def _may_be_turned(image: Image.Image) -> bool:
    """Whether EXIF may turn the image, so that its width is not the header's."""
    if (
        image.format == "PNG" and "exif" not in image.info
    ):  # Pillow would decode all of it to search for EXIF at the end
        return False
    return image.getexif().get(_ORIENTATION) in _TURNED


def _is_whole(image: Image.Image) -> bool:
    """Whether a file ends where its format says it does; False also for formats without a known end."""
    file = cast(BinaryIO, image.fp)  # type: ignore[attr-defined]
    if image.format == "TIFF":
        return _tiff_end(image) <= os.fstat(file.fileno()).st_size
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _END, 0))
    end = file.read()
    file.seek(0)
    head = file.read(8)
    return {
        "PNG": b"IEND" in end[-12:],
        "JPEG": b"\xff\xd9" in end.rstrip(b"\0"),
        "MPO": b"\xff\xd9" in end.rstrip(b"\0"),
        "GIF": end.rstrip(b"\0").endswith(b";"),
        "BMP": head[2:6] == size.to_bytes(4, "little"),
        "WEBP": int.from_bytes(head[4:8], "little") + 8 <= size,
    }.get(image.format or "", False)


def _tiff_end(image: Image.Image) -> float:
    """Where the last strip or tile of a TIFF ends; infinity where unknown."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) == _JPEG:  # its tables may lie anywhere
        return math.inf
    for starts, lengths in _TIFF_PARTS:
        if starts in tags and lengths in tags:
            parts = ([value] if isinstance(value, int) else value for value in (tags[starts], tags[lengths]))
            return max(start + length for start, length in zip(*parts, strict=True))
    return math.inf
