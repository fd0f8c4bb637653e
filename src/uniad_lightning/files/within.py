"""Whether a path stays inside a folder: by its text alone, or on the disk."""

import os
from pathlib import Path

from uniad_lightning.files.user_path import expand


def stays_within(path: str | Path) -> bool:
    """Whether the text of a path relative to some folder keeps it there: no root or drive, no `..` among its parts."""
    path = Path(path)
    return not path.anchor and ".." not in path.parts


def is_within(folder: Path, path: str | Path) -> bool:
    """Whether `path` lies in `folder` or is that, links followed. Raises InputError as `expand`."""
    return real(expand(path)).is_relative_to(real(folder))


def real(path: Path) -> Path:
    """`path` absolute, without links."""
    return Path(os.path.realpath(path))
