"""Files of `torch.save` that anyone may have written: read as tensors and plain values, or refused with the reason."""

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
    """What is in the file at `path`, on the CPU: tensors and plain values; nothing else of it is made.

    Raises InputError that begins with `name` for a file that is not of `kind`, a damaged one, and one of other objects.
    """
    try:
        if is_damaged(path):
            raise InputError(f"{name}: is damaged, its content is not what was written; take it anew from its source")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickles that it would not have written so
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # which a damaged offset gives
            raise InputError(f"{name}: cannot be read as {kind}; {system_reason(error)}") from None
        # Not torch's own text: it advises to let the file run what it likes.
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is None:
            raise InputError(f"{name}: cannot be read as {kind}; it is {_nature(path)}") from None
        raise InputError(
            f"{name}: holds an object of {foreign[1]}, more than tensors and plain values, and was not loaded"
        ) from None


def _nature(path: Path) -> str:
    """What an undamaged file is that torch could not read, as far as its first bytes tell."""
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
        return "not whole, its end is missing"
    return "damaged" if first[:1] == b"\x80" else "no file of torch.save"  # pickles, and torch's older files, begin so
