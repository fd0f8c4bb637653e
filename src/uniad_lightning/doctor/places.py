"""The folders that are written to: whether they can be, and how much they have left."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from uniad_lightning.data.shared_memory import FOLDER as SHARED
from uniad_lightning.doctor.findings import BROKEN, NOTE, OK, Finding
from uniad_lightning.errors import system_reason
from uniad_lightning.files.user_path import expand

_LITTLE = 2**30  # bytes: the feature cache leaves as much free
_BATCHES = 2**28  # bytes of shared memory: four processes with two batches of 32 images of 256 pixels each


def places(*, cache_dir: str, output_dir: str) -> Iterator[Finding]:
    """The feature cache, the output, the folder for temporary files, and shared memory."""
    yield _folder(
        "cache", expand(cache_dir), "data.cache_dir=DIR or UNIAD_CACHE=DIR names another, data.cache=off none"
    )
    yield _folder("output", expand(output_dir), "output_dir=DIR names another")
    try:
        yield _folder("temporary files", Path(tempfile.gettempdir()), "TMPDIR=DIR names another")
    except OSError as error:  # Python has tried several
        yield Finding(BROKEN, "temporary files", system_reason(error), "TMPDIR=DIR names another folder")
    if os.path.isdir(SHARED):
        yield _shared_memory(shutil.disk_usage(SHARED).free)


def _folder(subject: str, folder: Path, remedy: str) -> Finding:
    """Write a file in `folder`, or where it would be made, and remove it again."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(place))
    found = str(folder) if there == folder.absolute() else f"{folder} (to be made in {there})"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 4096)
            file.flush()
        free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(BROKEN, subject, f"{found} cannot be written to ({system_reason(error)})", remedy)
    if free < _LITTLE:
        return Finding(NOTE, subject, f"{found} has {free / 1e9:.1f} GB free", remedy)
    return Finding(OK, subject, f"{found}, {free / 1e9:.0f} GB free")


def _shared_memory(free: int) -> Finding:
    found = f"{SHARED} has {free / 1e6:.0f} MB free"
    if free < _BATCHES:
        return Finding(NOTE, "shared memory", found, "fewer processes load images; docker run --shm-size=1g gives more")
    return Finding(OK, "shared memory", found)
