"""Opening an image file: allowed files and sizes, and one error for every failure.

An error of the file is an `InputError`, one of the system a `TemporaryError`, which may be gone at the next try.
"""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from uniad_lightning.data.images.formats import FORMATS
from uniad_lightning.errors import InputError, TemporaryError, one_line

# What Pillow logs of a damaged file is said by the error, which names the file.
logging.getLogger("PIL").setLevel(logging.CRITICAL)

MAX_PIXELS = 100_000_000  # 300 MB once decoded; line-scan cameras stay below, a file made to fill the memory does not
_MOST_SCANS = 100  # of a JPEG, the limit of libtiff; encoders write about ten, and each costs a pass over all pixels
_SCAN = b"\xff\xda"
DATA_SET_PIXELS = 178_956_970  # Pillow's own; a training has no setting to raise it

# Errors that are the system's and not the file's; some names are missing on some systems. Not EINVAL, which a damaged
# file causes by an impossible offset.
_OF_THE_SYSTEM = frozenset(
    getattr(errno, name)
    for name in (
        "EACCES", "EPERM", "EMFILE", "ENFILE", "EIO", "ENOMEM", "ESTALE", "EAGAIN", "EINTR", "ETIMEDOUT", "EBUSY",
        "ENODEV", "ENXIO", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET",
        "ECONNABORTED", "ECONNRESET", "ECONNREFUSED", "ENOLINK", "EREMOTEIO", "ECOMM", "ENOKEY", "EKEYEXPIRED",
        "ENOBUFS", "EDEADLK", "ENOLCK", "EPIPE", "ESHUTDOWN",
    )
    if hasattr(errno, name)
)  # fmt: skip


_OF_THE_PATH = (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG)


@contextmanager
def opened(path: Path, max_pixels: int) -> Iterator[Image.Image]:
    """The image in a file, its pixels not loaded yet, as a context; errors inside are converted by `faults_of`.

    Raises InputError for no regular file, no image, and more than `max_pixels` by its header.
    """
    # Pillow refuses at twice its own limit, which is for the whole process. `max_pixels` is the limit here, so Pillow's
    # is only raised, and still guards against large embedded images.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    with faults_of(path, max_pixels):
        _refuse_irregular(path)
        # Given a path, Pillow maps an uncompressed TIFF into memory, and mixes up its rows for the EXIF orientations 5
        # to 8 (13.0).
        with path.open("rb") as file, Image.open(file, formats=_formats()) as image:
            refuse_above(max_pixels, image.size, path)
            yield image


@contextmanager
def faults_of(path: Path | str, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turns every error of opening, decoding or converting an image inside into one InputError that names `path`.

    A TemporaryError where the system is at fault, such as for permissions, open files, memory or a network share.
    """
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected an image") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: {_what_else(path)}; save it as PNG or delete it") from None
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d{4,}", str(error))
        raise _too_large(path, f"{int(pixels[0]) / 1e6:.1f} megapixels" if pixels else "huge", max_pixels) from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM):
            reason = (error.strerror if isinstance(error, OSError) else None) or "out of memory"
            raise TemporaryError(
                f"{path}: cannot be read now ({reason}), which is the system's fault and not the image's; fix that "
                "and try again"
            ) from None
        if isinstance(error, OSError) and error.errno in _OF_THE_PATH:
            raise InputError(f"{path}: cannot be opened ({error.strerror}); correct the path") from None
        raise InputError(f"{path}: the image cannot be decoded ({one_line(error)}); replace or delete it") from None


def refuse_slow(image: Image.Image, path: Path) -> None:
    """Raises InputError for a JPEG of so many scans that it was made to keep the decoder busy for minutes."""
    if image.format in ("JPEG", "MPO", "BLP"):  # the last may hold one
        scans = path.read_bytes().count(_SCAN)
        if scans > _MOST_SCANS:
            raise InputError(
                f"{path}: has {scans} scans, more than the limit of {_MOST_SCANS} for a JPEG; it would take minutes to "
                "decode; save it again in an image editor, or delete it"
            )


def refuse_above(max_pixels: int, size: tuple[int, int], path: Path | str) -> None:
    """Raises InputError for an image or video frame of more than `max_pixels`; `size` is (width, height)."""
    if size[0] * size[1] > max_pixels:
        raise _too_large(path, f"{size[0]} x {size[1]} pixels are {size[0] * size[1] / 1e6:.1f} megapixels", max_pixels)


def _too_large(path: Path | str, size: str, max_pixels: int) -> InputError:
    return InputError(
        f"{path}: {size}, more than the limit of {max_pixels / 1e6:g}; save it smaller, or raise max_megapixels where "
        "there is that setting"
    )


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this build of Pillow has; others would make it raise KeyError for any file."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _refuse_irregular(path: Path) -> None:
    """Raises InputError for a folder, and for a pipe or device, where reading would block forever."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise InputError(f"{path}: is a {kind}, expected an image file; give the image itself, or leave it out")


def _what_else(path: Path | str) -> str:
    """Why Pillow does not recognise a file as an image, for a message."""
    try:
        with open(path, "rb") as file:
            head = file.read(8)
    except OSError as error:  # removed in the meantime
        return f"not an image in a known format ({one_line(error)})"
    if not head:
        return "the file is empty"
    return f"not an image in a format that Pillow knows (it begins with {head!r})"
