"""The images of a folder tree or of a pattern, listed lazily, with only the names of one folder in memory."""

import os
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.layouts.listing import is_image, is_left_out

ALL = ("**",)  # every image, at any depth


class Found(NamedTuple):
    """An image, or an error in its place.

    Attributes:
        name: path below the folder that was walked, with slashes.
        path: the path itself.
        error: of a folder that cannot be listed, or an entry that cannot be accessed; None for an image.
        is_folder: whether it is known to be a folder.
    """

    name: str
    path: Path
    error: OSError | None = None
    is_folder: bool = False

    @property
    def message(self) -> str:
        """The `error` with its remedy."""
        reason = self.error.strerror if self.error is not None else None
        if self.is_folder:
            return f"{self.path}: the folder cannot be listed ({reason}); mend its permissions or leave it out"
        return f"{self.path}: cannot be accessed ({reason}); mend the link or its permissions, or leave it out"


class _Entry(NamedTuple):
    """One name in a folder, links followed; `error` where that is not possible."""

    name: str
    is_folder: bool
    is_file: bool
    error: OSError | None


def walk(
    folder: Path,
    pattern: Sequence[str] = ALL,
    *,
    without: Path | None = None,
    passed_over: Callable[[str], None] | None = None,
) -> Iterator[Found]:
    """The images below `folder` whose path matches `pattern`, sorted as paths are, while the tree is being read.

    `pattern` has one entry per folder and one for the file; `**` stands for any number of folders. A folder that
    matches gives all images below it. Links are followed, but not back to a folder above. Hidden and system files
    (`is_left_out`) and the folder `without` are left out; `passed_over` gets the path of any other file that matches
    and does not have the suffix of an image.
    """
    walker = _Walker(without, passed_over or (lambda path: None))
    yield from walker.below(str(folder), "", _Pattern(pattern), frozenset([0]), frozenset())


def split(text: str) -> tuple[Path, tuple[str, ...]]:
    """A pattern such as `photos/**/*.png` as its folder without wildcards, and the parts to match below it."""
    parts = Path(text).parts
    fixed = next(i for i, part in enumerate(parts) if has_magic(part))
    return Path(*parts[:fixed]), parts[fixed:]


class _Pattern:
    """A path pattern as an automaton: a state is the number of its parts that are matched."""

    def __init__(self, parts: Sequence[str]):
        self.parts = tuple(parts)

    def step(self, states: frozenset[int], name: str) -> frozenset[int]:
        """The states after one more name of a path."""
        reached = set()
        for state in self._skipped(states):
            if state == len(self.parts):
                continue
            if self.parts[state] == "**":
                reached.add(state)
            elif fnmatch(name, self.parts[state]):
                reached.add(state + 1)
        return frozenset(reached)

    def complete(self, states: frozenset[int]) -> bool:
        """Whether the names so far match the whole pattern."""
        return len(self.parts) in self._skipped(states)

    def _skipped(self, states: frozenset[int]) -> set[int]:
        """`states` and those reached by a `**` that stands for no folder."""
        reached = set(states)
        for state in sorted(states):
            while state < len(self.parts) and self.parts[state] == "**":
                state += 1
                reached.add(state)
        return reached


class _Walker:
    def __init__(self, without: Path | None, passed_over: Callable[[str], None]):
        self._without = without
        self._passed_over = passed_over

    def below(
        self, folder: str, prefix: str, pattern: _Pattern, states: frozenset[int], above: frozenset[tuple[int, int]]
    ) -> Iterator[Found]:
        """As `walk`; `above` has device and inode of the folders above, which a link may lead back to."""
        try:
            here = os.stat(folder)
            identity = here.st_dev, here.st_ino
            if identity in above or self._is_left_out(here):
                return
            entries = _entries(folder)
        except OSError as error:
            yield Found(prefix, Path(folder), error, is_folder=True)
            return
        for entry in entries:
            reached = pattern.step(states, entry.name)
            if not reached:
                continue
            path, label = os.path.join(folder, entry.name), f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_folder and pattern.complete(reached):
                yield from self.below(path, label, _Pattern(ALL), frozenset([0]), above | {identity})
            elif entry.is_folder:
                yield from self.below(path, label, pattern, reached, above | {identity})
            elif pattern.complete(reached) or entry.error is not None:
                yield from self._file(entry, path, label)

    def _file(self, entry: _Entry, path: str, label: str) -> Iterator[Found]:
        if entry.error is not None:
            yield Found(label, Path(path), entry.error)
        elif is_image(Path(entry.name)):
            # Of any kind: a link to nowhere is to be an error when read, not a missing image.
            yield Found(label, Path(path))
        elif entry.is_file:
            self._passed_over(path)

    def _is_left_out(self, here: os.stat_result) -> bool:
        try:
            return self._without is not None and os.path.samestat(here, os.stat(self._without))
        except OSError:  # it is not made yet
            return False


def _entries(folder: str) -> list[_Entry]:
    """The entries of a folder, sorted by name, without those of `is_left_out`."""
    with os.scandir(folder) as entries:
        named = [entry for entry in entries if not is_left_out(entry.name)]
    return sorted(map(_resolved, named))


def _resolved(entry: "os.DirEntry[str]") -> _Entry:
    """One entry, with its own error, such as that of a link in a circle."""
    try:
        is_folder, is_file = entry.is_dir(), entry.is_file()
        if not is_folder and not is_file and not os.path.splitext(entry.name)[1] and entry.is_symlink():
            os.stat(entry.path)  # perhaps a folder of images on a share that is not mounted
    except OSError as error:
        return _Entry(entry.name, False, False, error)
    return _Entry(entry.name, is_folder, is_file, None)
