"""Files of `torch.save` from any source: read as tensors and plain values only, or refused with the reason."""

import errno
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from uniad_lightning.errors import InputError, system_reason
from uniad_lightning.files.sealed import is_archive, is_damaged

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"BM", b"GIF8", b"II*\0", b"MM\0*")  # how their files begin


def read_torch_file(path: Path, name: str, kind: str = "a checkpoint") -> Any:
    """The content of the file at `path`, on the CPU: tensors and plain values; no other object is created.

    Raises InputError that begins with `name` for a file that is not of `kind`, a damaged one, and one of other objects.
    """
    try:
        _refuse_packed(path, name)
        if is_damaged(path):
            raise InputError(
                f"{name}: is damaged, its content has changed since it was written; copy it again from its source"
            )
        nature = _foreign(path)
        if nature is not None:
            raise InputError(f"{name}: cannot be read as {kind}; it is {nature}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles in another form than its own
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # caused by a damaged offset
            raise InputError(f"{name}: cannot be read as {kind}; {system_reason(error)}") from None
        # Not torch's own text: it advises to allow the file to run code.
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is None:
            raise InputError(f"{name}: cannot be read as {kind}; it is {_nature(path)}") from None
        raise InputError(
            f"{name}: holds an object of {foreign[1]}, more than tensors and plain values, and was not loaded"
        ) from None


def _refuse_packed(path: Path, name: str) -> None:
    """Raises InputError for an archive that unpacks to more than its size, before anything unpacks it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return  # no archive, or a damaged one, of which the digest tells
    packed = any(one.compress_type != zipfile.ZIP_STORED for one in members)
    if packed or sum(one.file_size for one in members) > path.stat().st_size:
        raise InputError(f"{name}: its members are packed or overlap, as torch.save leaves none; use another file")


def _foreign(path: Path) -> str | None:
    """What a file is that `torch.save` has not written, by its name and first bytes; None where torch may read it.

    Told before torch reads it, which takes the letters of a text for the instructions of a pickle.
    """
    with path.open("rb") as file:
        first = file.read(16)
    if not first:
        return "empty"
    if path.suffix == ".onnx":
        return "an exported ONNX model; give the checkpoint that it was exported from"
    if path.suffix in (".yaml", ".yml"):
        return "a YAML file"
    return "an image" if first.startswith(_IMAGES) or first[8:12] == b"WEBP" else None


def _nature(path: Path) -> str:
    """The kind of an undamaged file that torch could not read, by its content."""
    with path.open("rb") as file:
        first = file.read(8)
    if is_archive(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/data.pkl") for name in names):
            return "damaged"
        program = any("/models/" in name or "serialized_exported_program" in name for name in names)
        return "a program of torch.export" if program else "another ZIP archive"
    if first.startswith(b"PK"):
        return "incomplete, its end is missing"
    is_pickle = first[:1] == b"\x80"  # as old torch files are
    return "damaged" if is_pickle else "not a file of torch.save"
