"""Which files of an output folder this package has written: only those may be removed."""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

from uniad_lightning.files.atomic import remove_left
from uniad_lightning.files.within import is_within, real, stays_within
from uniad_lightning.results.history import remember

MARK = ".uniad"  # folder that marks an output folder
_LIST = "written"  # file in it: a path below the output folder in each line, as JSON
# What loggers write: Lightning's, each version in its own folder, and the name of the run at MLflow.
_LOGS = (
    "logs/version_*/metrics.csv",
    "logs/version_*/hparams.yaml",
    "tensorboard/version_*/events.out.tfevents.*",
    "tensorboard/version_*/hparams.yaml",
    "mlflow/run_id",
)
_LONGEST = 200  # bytes of a name without its suffix, of the 255 that file systems allow

_held: dict[Path, set[str]] = {}  # output folders that this process writes to, with the files it has listed there
_unnamed: set[Path] = set()  # those of them that do not know the command yet


def is_marked(folder: Path) -> bool:
    """Whether `folder` is an output folder."""
    return (folder / MARK / _LIST).is_file()


def mark(folder: Path, files: list[str]) -> None:
    """Mark `folder` as an output folder with the written `files`, unless it is one already."""
    (folder / MARK).mkdir(parents=True, exist_ok=True)
    if not is_marked(folder):
        (folder / MARK / _LIST).write_text("".join(f"{json.dumps(name)}\n" for name in files))


def begin(folder: Path, *, first: bool) -> None:
    """Start to list what this process writes in the marked `folder`; the `first` of a run lists its command, too."""
    _held[real(folder)] = set()
    if first:
        _unnamed.add(real(folder))


def end(folder: Path) -> None:
    """The opposite of `begin`."""
    _held.pop(real(folder), None)
    _unnamed.discard(real(folder))


def is_held(folder: Path) -> bool:
    """Whether this process writes to `folder`."""
    return real(folder) in _held


def note(path: Path) -> None:
    """List the file `path`, which is about to be written, if it lies in an output folder of this process."""
    place = real(path.parent) / path.name
    for folder, listed in _held.items():
        if place.is_relative_to(folder) and is_marked(folder):
            name = place.relative_to(folder).as_posix()
            if folder in _unnamed:
                _unnamed.discard(folder)
                remember(folder / MARK)
            if name not in listed:
                listed.add(name)
                with (folder / MARK / _LIST).open("a") as file:
                    file.write(f"{json.dumps(name)}\n")


def written(folder: Path) -> list[str]:
    """The existing files below `folder` that this package has written, sorted, `/` between the parts."""
    listed = folder / MARK / _LIST
    names = set(_names(listed)) if listed.is_file() else set()
    return sorted(name for name in names | logs(folder) if _is_own(folder, name) and os.path.lexists(folder / name))


def remove_unfinished(folder: Path) -> None:
    """Remove what killed runs have left of files that they were writing; to be called while `folder` is locked."""
    remove_left(folder / name for name in _names(folder / MARK / _LIST) if _is_own(folder, name))


def _is_own(folder: Path, name: str) -> bool:
    """Whether `name` lies in `folder` when links are followed: a stranger's folder may hold links out of it."""
    return is_within(folder, (folder / name).parent)


def logs(folder: Path) -> set[str]:
    """The files of loggers below an output folder."""
    return {path.relative_to(folder).as_posix() for pattern in _LOGS for path in folder.glob(pattern)}


def remove_written(folder: Path, *, stays: Callable[[str], bool]) -> None:
    """Remove the `written` files except those that stay, and folders that become empty."""
    for name in written(folder):
        if stays(name):
            continue
        path = folder / name
        path.unlink(missing_ok=True)
        for parent in path.parents:
            if parent == folder or any(parent.iterdir()):
                break
            parent.rmdir()


def foreign(folder: Path, name: str) -> str | None:
    """The first file at or below `name` in `folder` that this package has not written; None where there is none."""
    path, own = folder / name, set(written(folder))
    if not os.path.lexists(path):
        return None
    below = _files(path) if path.is_dir() and not path.is_symlink() else [path]
    names = (file.relative_to(folder).as_posix() for file in below)
    return next((relative for relative in names if relative not in own), None)


def file_stem(name: str) -> str:
    """`name` as that of a file without suffix: unchanged, or where it is too long, cut and with a hash of it all."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST:
        return name
    return f"{encoded[:_LONGEST].decode('utf-8', 'ignore')}~{blake2b(encoded, digest_size=6).hexdigest()}"


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in sorted(names))


def _names(listed: Path) -> Iterator[str]:
    """The listed paths, without incomplete lines and paths that lead out of the folder."""
    for line in listed.read_text().splitlines():
        try:
            name = json.loads(line)
        except ValueError:
            continue
        if isinstance(name, str) and name and stays_within(name):
            yield name
