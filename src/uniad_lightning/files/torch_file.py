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


def read_torch_file(path: Path, name: str, kind: str = "a checkpoint") -> Any:
    """The content of the file at `path`, on the CPU: tensors and plain values; no other object is created.

    Raises InputError that begins with `name` for a file that is not of `kind`, a damaged one, and one of other objects.
    """
    try:
        if is_damaged(path):
            raise InputError(
                f"{name}: is damaged, its content has changed since it was written; copy it again from its source"
            )
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


def _nature(path: Path) -> str:
    """The kind of an undamaged file that torch could not read, by its first bytes."""
    with path.open("rb") as file:
        first = file.read(8)
    if not first:
        return "empty"
    if path.suffix == ".onnx":
        return "an exported ONNX model"
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
