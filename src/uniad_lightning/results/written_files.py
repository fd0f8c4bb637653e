"""Which files of an output folder this package has written: those alone may be removed, whatever else lies there."""

import json
import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path

MARK = ".uniad"  # folder in each output folder that says that it is one
_LIST = "written"  # file in it: a path below the output folder in each line, as JSON
# What loggers of Lightning write, each version in a folder of its own.
_LOGS = (
    "logs/version_*/metrics.csv",
    "logs/version_*/hparams.yaml",
    "tensorboard/version_*/events.out.tfevents.*",
    "tensorboard/version_*/hparams.yaml",
)
_LONGEST = 200  # bytes of a name, of the 255 that file systems allow with suffix and all

_held: dict[Path, set[str]] = {}  # output folders that this process writes to, and what it has listed there


def is_marked(folder: Path) -> bool:
    """Whether `folder` is an output folder."""
    return (folder / MARK / _LIST).is_file()


def mark(folder: Path, files: list[str]) -> None:
    """Make `folder` an output folder in which `files` were written before, if it is none yet."""
    (folder / MARK).mkdir(parents=True, exist_ok=True)
    if not is_marked(folder):
        (folder / MARK / _LIST).write_text("".join(f"{json.dumps(name)}\n" for name in files))


def begin(folder: Path) -> None:
    """List what this process writes in the marked `folder` from here on."""
    _held[real(folder)] = set()


def end(folder: Path) -> None:
    """The opposite of `begin`."""
    _held.pop(real(folder), None)


def is_held(folder: Path) -> bool:
    """Whether this process writes to `folder`."""
    return real(folder) in _held


def note(path: Path) -> None:
    """List the file `path`, which is about to be written, where it lies in a folder that this process writes to."""
    place = real(path.parent) / path.name
    for folder, listed in _held.items():
        if place.is_relative_to(folder) and is_marked(folder):
            name = place.relative_to(folder).as_posix()
            if name not in listed:
                listed.add(name)
                with (folder / MARK / _LIST).open("a") as file:
                    file.write(f"{json.dumps(name)}\n")


def written(folder: Path) -> list[str]:
    """The files below `folder` that are there and were written by this package, sorted, `/` between the parts."""
    listed = folder / MARK / _LIST
    names = set(_names(listed)) if listed.is_file() else set()
    return sorted(name for name in names | logs(folder) if os.path.lexists(folder / name))


def logs(folder: Path) -> set[str]:
    """The files of Lightning's loggers below an output folder."""
    return {path.relative_to(folder).as_posix() for pattern in _LOGS for path in folder.glob(pattern)}


def remove_written(folder: Path, *, stays: Callable[[str], bool]) -> None:
    """Remove the `written` files but those that stay, and the folders that are empty then."""
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
    path, ours = folder / name, set(written(folder))
    if not os.path.lexists(path):
        return None
    below = _files(path) if path.is_dir() and not path.is_symlink() else [path]
    return next((found for file in below if (found := file.relative_to(folder).as_posix()) not in ours), None)


def file_stem(name: str) -> str:
    """`name` as a file's without its suffix: itself, or where that is too long its beginning with a code of it all."""
    whole = os.fsencode(name)
    if len(whole) <= _LONGEST:
        return name
    return f"{whole[:_LONGEST].decode('utf-8', 'ignore')}~{blake2b(whole, digest_size=6).hexdigest()}"


def real(path: Path) -> Path:
    """`path` absolute, without links."""
    return Path(os.path.realpath(path))


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in sorted(names))


def _names(listed: Path) -> Iterator[str]:
    """The listed paths; a line that an interruption tore, and a path that leads out of the folder, are passed over."""
    for line in listed.read_text().splitlines():
        try:
            name = json.loads(line)
        except ValueError:
            continue
        if isinstance(name, str) and name and not Path(name).is_absolute() and ".." not in Path(name).parts:
            yield name
