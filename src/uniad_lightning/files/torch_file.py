"""Files of `torch.save` from any source: read as tensors and plain values only, or refused with the reason."""

import errno
import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch

from uniad_lightning.errors import InputError, system_reason
from uniad_lightning.files.sealed import is_archive, is_damaged

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"II*\0", b"MM\0*")  # how their files begin


def read_torch_file(path: Path, name: str, kind: str = "a checkpoint") -> Any:
    """The content of the file at `path`, on the CPU: tensors and plain values; no other object is created.

    Raises InputError that begins with `name` for a file that is not of `kind`, a damaged one, and one of other objects.
    """
    try:
        with path.open("rb") as file:  # once: a training or a calibration may replace it meanwhile
            return _read(file, path.suffix, name, kind)
    except OSError as error:
        raise InputError(f"{name}: cannot be read as {kind}; {system_reason(error)}") from None


def _read(file: BinaryIO, suffix: str, name: str, kind: str) -> Any:
    """As `read_torch_file`. Raises OSError, too."""
    try:
        _refuse_packed(file, name)
        if is_damaged(file):
            raise InputError(
                f"{name}: is damaged, its content has changed since it was written; copy it again from its source"
            )
        nature = _foreign(file, suffix)
        if nature is not None:
            raise InputError(f"{name}: cannot be read as {kind}; it is {nature}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles in another form than its own
            file.seek(0)
            return torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # caused by a damaged offset
            raise
        # Not torch's own text: it advises to allow the file to run code.
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is None:
            raise InputError(f"{name}: cannot be read as {kind}; it is {_nature(file)}") from None
        raise InputError(
            f"{name}: holds an object of {foreign[1]}, more than tensors and plain values, and was not loaded"
        ) from None


def _refuse_packed(file: BinaryIO, name: str) -> None:
    """Raises InputError for an archive that unpacks to more than its size, before anything unpacks it."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return  # no archive, or a damaged one, of which the digest tells
    packed = any(one.compress_type != zipfile.ZIP_STORED for one in members)
    if packed or sum(one.file_size for one in members) > file.seek(0, os.SEEK_END):
        raise InputError(f"{name}: its members are packed or overlap, as torch.save leaves none; use another file")


def _foreign(file: BinaryIO, suffix: str) -> str | None:
    """What a file is that `torch.save` has not written, by its suffix and first bytes; None where torch may read it.

    Told before torch reads it, which takes the letters of a text for the instructions of a pickle.
    """
    file.seek(0)
    first = file.read(16)
    if not first:
        return "empty"
    if suffix == ".onnx":
        return "an exported ONNX model; give the checkpoint that it was exported from"
    if suffix in (".yaml", ".yml"):
        return "a YAML file"
    return "an image" if first.startswith(_IMAGES) or first[8:12] == b"WEBP" else None


def _nature(file: BinaryIO) -> str:
    """The kind of an undamaged file that torch could not read, by its content."""
    file.seek(0)
    first = file.read(8)
    if is_archive(file):
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names):
            return "damaged"
        program = any("/models/" in name or "serialized_exported_program" in name for name in names)
        return "a program of torch.export" if program else "another ZIP archive"
    if first.startswith(b"PK"):
        return "incomplete, its end is missing"
    is_pickle = first[:1] == b"\x80"  # as old torch files are
    return "damaged" if is_pickle else "not a file of torch.save"
