"""Tensors that are expensive to make, kept in a file under a name of what they depend on, and made once."""

import hashlib
import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from uniad_lightning.errors import InputError, print_stderr, system_reason
from uniad_lightning.files.atomic import remove_left, write_whole
from uniad_lightning.files.sealed import seal_archive
from uniad_lightning.files.torch_file import read_torch_file

Tensors = dict[str, Tensor]


def kept(folder: Path, about: Mapping[str, Any], make: Callable[[], Tensors]) -> tuple[Tensors, Path | None]:
    """What `make` returns for the plain values `about`, from its file in `folder` where an earlier call has kept it.

    Also the file where it was read, None where it was made. Others that ask for the same wait until it is
    there, in whatever process; an interrupted call leaves nothing. Where the folder cannot be written, a warning says
    so and nothing is kept.

    Raises InputError for a damaged file.
    """
    text = json.dumps(about, sort_keys=True)
    path = folder / f"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}.pt"
    lock = FileLock(path.with_suffix(".lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        print_stderr(f"warning: {path} cannot be written; {system_reason(error)}")
        return make(), None
    try:
        if path.is_file():
            return _read(path, text), path
        remove_left([path])
        made = make()
        _write(path, {"about": text, "tensors": made})
        return made, None
    finally:
        lock.release()


def _read(path: Path, about: str) -> Tensors:
    again = "or delete it, and it is made again"
    try:
        content = read_torch_file(path, str(path), "kept tensors")
    except InputError as error:
        raise InputError(f"{error}, {again}") from None
    if not isinstance(content, dict) or content.get("about") != about:
        raise InputError(f"{path}: holds something else than its name says; copy it again from its source, {again}")
    return content["tensors"]


def _write(path: Path, content: dict[str, Any]) -> None:
    archive = BytesIO()
    torch.save(content, archive)
    try:
        with seal_archive(archive).getbuffer() as whole:
            write_whole(path, whole)
    except OSError as error:  # a full disk
        print_stderr(f"warning: {path} cannot be written; {system_reason(error)}")
