"""The folder of one store of a feature cache: how it is recognised, locked and removed."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from uniad_lightning.files.atomic import write_whole

INDEX, ABOUT, HELD = "index.sqlite", "about.json", "held"
_NAME = re.compile(r"[0-9a-f]{24}")
_FILES = re.compile(r"about\.json|\.about\.json\.\d+\.tmp|index\.sqlite(-journal)?|features-\d{5,}\.bin|held")
_SHAPE = "shape"  # of the features: the one entry of about.json that is not part of the name


def digest(about: Mapping[str, Any]) -> str:
    """A name for a set of plain values."""
    return hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=12).hexdigest()


def shard_name(number: int) -> str:
    """The name of the `number`-th file of features, each about 1 GB."""
    return f"features-{number:05d}.bin"


def write_about(folder: Path, about: Mapping[str, Any], shape: list[int]) -> None:
    """Write what the features depend on to about.json, atomically, unless the file has it already."""
    text = json.dumps({**about, _SHAPE: shape}, indent=2) + "\n"
    file = folder / ABOUT
    if file.is_file() and file.read_text(errors="replace") == text:
        return
    write_whole(file, text.encode())


def read_about(folder: Path) -> dict[str, Any] | None:
    """What the features depend on; None where about.json is missing or damaged."""
    try:
        about = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def is_store(folder: Path) -> bool:
    """Whether the cache made this folder: by its name, all names in it, and about.json unless damaged."""
    if folder.is_symlink() or not folder.is_dir() or not _NAME.fullmatch(folder.name):
        return False
    names = os.listdir(folder)
    if not names or not all(map(_FILES.fullmatch, names)):
        return False
    about = read_about(folder)
    return about is None or digest({name: value for name, value in about.items() if name != _SHAPE}) == folder.name


def hold(folder: Path) -> IO[bytes]:
    """Create the folder where missing, and hold a lock on it for as long as the returned file is open."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with alone_in(folder.parent):
        folder.mkdir(exist_ok=True)
        held = (folder / HELD).open("ab")
        _lock(held.fileno(), alone=False, waits=True)
    return held


def remove_unheld(folder: Path) -> bool:
    """Remove a store unless a process holds it; returns whether it is removed."""
    with alone_in(folder.parent):
        try:
            held = (folder / HELD).open("r+b")
        except OSError:
            if (folder / HELD).exists():  # it is another user's
                return False
            shutil.rmtree(folder, ignore_errors=True)  # gone already, or an earlier removal was ended half-way
            return not folder.exists()
        with held:
            if not _lock(held.fileno(), alone=True, waits=False):
                return False
            shutil.rmtree(folder)
    return True


@contextmanager
def alone_in(cache: Path) -> Iterator[None]:
    """Lock the folder of all stores for a moment, so that none is opened while another process removes or mends it."""
    try:
        opened = os.open(cache, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and has no such locks either
        yield
        return
    try:
        _lock(opened, alone=True, waits=True)
        yield
    finally:
        os.close(opened)


def _lock(file: int, *, alone: bool, waits: bool) -> bool:
    """Lock an open file, shared or `alone`; returns whether it is locked, False only where it `waits` for no other."""
    try:
        import fcntl

        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        fcntl.flock(file, how if waits else how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):  # on Windows; a file system without locks
        return True
    return True
