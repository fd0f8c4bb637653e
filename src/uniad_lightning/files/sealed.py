"""Files that end with a digest of all before it, by which damage is found before they are used.

The end is an entry of an ONNX model's metadata, which Protocol Buffers accept anywhere. In a ZIP archive, as written
by `torch.save` and `torch.export.save`, the same bytes are the archive's comment. So other programs read the files as
before.
"""

import hashlib
import os
import zipfile
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

KEY = "uniad.digest"
_END_OF_ARCHIVE = b"PK\x05\x06"  # a record of 22 bytes, the last two the length of the comment after it
_DIGITS = 64
_CHUNK = 1 << 20


def _field(tag: int, content: bytes) -> bytes:
    """A field of a message of Protocol Buffers, shorter than 128 bytes."""
    return bytes([tag, len(content)]) + content


def _end(digest: str) -> bytes:
    """The entry `metadata_props` {key: KEY, value: the digest as JSON} of an ONNX model."""
    return _field(0x72, _field(0x0A, KEY.encode()) + _field(0x12, f'"{digest}"'.encode()))


_LENGTH = len(_end("0" * _DIGITS))
_START = _end("0" * _DIGITS)[: -_DIGITS - 1]


def seal_archive(archive: BytesIO) -> BytesIO:
    """A ZIP archive without a comment, with its digest at the end; raises ValueError for anything else."""
    with archive.getbuffer() as content:
        if bytes(content[-22:-18]) != _END_OF_ARCHIVE:
            raise ValueError("not a ZIP archive without a comment")
        content[-2:] = _LENGTH.to_bytes(2, "little")
        end = _end(_digest(content))
    archive.seek(0, os.SEEK_END)
    archive.write(end)
    return archive


def seal_model(model: bytes) -> BytesIO:
    """A serialised ONNX model with its digest at the end."""
    return BytesIO(model + _end(_digest(model)))


def is_sealed(path: Path) -> bool:
    """Whether the file ends with a digest."""
    with path.open("rb") as file:
        return _read_end(file).startswith(_START)


def is_archive(file: Path | BinaryIO) -> bool:
    """Whether the file is a ZIP archive, damaged or not."""
    try:
        return zipfile.is_zipfile(file)
    except zipfile.BadZipFile:
        return True


def is_damaged(file: BinaryIO) -> bool:
    """Whether the file has changed since it was written, by its digest, or the checksums of an archive without one.

    An open file, as its name may lead to another one at any moment.
    """
    end = _read_end(file)
    if end.startswith(_START):
        return end != _end(_digest_of_all_but(end, file))
    if not is_archive(file):
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError):
        return True  # damaged records make `zipfile` raise any of these


def _digest(content: bytes | memoryview) -> str:
    return hashlib.blake2b(content, digest_size=_DIGITS // 2).hexdigest()


def _digest_of_all_but(end: bytes, file: BinaryIO) -> str:
    """The digest of what comes before the `end` of the file."""
    digest, left = hashlib.blake2b(digest_size=_DIGITS // 2), file.seek(0, os.SEEK_END) - len(end)
    file.seek(0)
    while chunk := file.read(min(left, _CHUNK)):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest()


def _read_end(file: BinaryIO) -> bytes:
    file.seek(max(file.seek(0, os.SEEK_END) - _LENGTH, 0))
    return file.read()
