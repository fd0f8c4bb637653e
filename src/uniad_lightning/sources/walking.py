"""The pictures of a folder tree or of a pattern, one after the other, with only one folder's names in memory."""

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from glob import has_magic
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.listing import is_picture

ALL = ("**",)  # every picture, at any depth


class Found(NamedTuple):
    """A picture, or a folder that cannot be listed.

    Attributes:
        name: path below the folder that was walked, with slashes.
        path: where it lies.
        error: why a folder cannot be listed; None for a picture.
    """

    name: str
    path: Path
    error: OSError | None

    @property
    def message(self) -> str:
        """What is wrong with a folder that cannot be listed."""
        reason = self.error.strerror if self.error is not None else None
        return f"{self.path}: the folder cannot be listed ({reason}); mend its permissions or leave it out"


def walk(folder: Path, pattern: Sequence[str] = ALL, *, without: Path | None = None) -> Iterator[Found]:
    """The pictures below `folder` whose path matches `pattern`, sorted as paths are, while the tree is being read.

    `pattern` has one entry per folder and one for the file; `**` stands for any number of folders. A folder that
    matches gives all pictures below it. Hidden files and folders and the folder `without` are passed over, and links
    followed, but not back to a folder on the way here.
    """
    excluded = None if without is None else os.path.realpath(without)
    yield from _below(str(folder), "", _Pattern(pattern), frozenset([0]), frozenset(filter(None, [excluded])))


def split(text: str) -> tuple[Path, tuple[str, ...]]:
    """The folder a pattern such as `photos/**/*.png` starts from, and what is to match below it."""
    parts = Path(text).parts
    fixed = next(i for i, part in enumerate(parts) if has_magic(part))
    return Path(*parts[:fixed]), parts[fixed:]


class _Pattern:
    """A path pattern as an automaton: a state is the number of its parts that are used up."""

    def __init__(self, parts: Sequence[str]):
        self.parts = tuple(parts)

    def step(self, states: frozenset[int], name: str) -> frozenset[int]:
        """The states after a name."""
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
        """Whether what was seen matches the whole pattern."""
        return len(self.parts) in self._skipped(states)

    def _skipped(self, states: frozenset[int]) -> set[int]:
        """`states` and those that `**` for no folder leads to."""
        reached = set(states)
        for state in sorted(states):
            while state < len(self.parts) and self.parts[state] == "**":
                state += 1
                reached.add(state)
        return reached


def _below(
    folder: str, prefix: str, pattern: _Pattern, states: frozenset[int], closed: frozenset[str]
) -> Iterator[Found]:
    """As `walk`; `closed` are the folders not to enter: those on the way here, and the excluded one."""
    here = os.path.realpath(folder)
    if here in closed:
        return
    try:
        entries = _entries(folder)
    except OSError as error:
        yield Found(prefix, Path(folder), error)
        return
    for name, is_folder in entries:
        reached = pattern.step(states, name)
        if not reached:
            continue
        path, label = os.path.join(folder, name), f"{prefix}/{name}" if prefix else name
        if not is_folder:
            if pattern.complete(reached):
                yield Found(label, Path(path), None)
        elif pattern.complete(reached):
            yield from _below(path, label, _Pattern(ALL), frozenset([0]), closed | {here})
        else:
            yield from _below(path, label, pattern, reached, closed | {here})


def _entries(folder: str) -> list[tuple[str, bool]]:
    """The names in a folder that can matter, sorted, and whether each is a folder."""
    with os.scandir(folder) as entries:
        named = ((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
        # Not whether it is a file: a link to nowhere is to be an error when read, not a picture fewer.
        return sorted((name, is_folder) for name, is_folder in named if is_folder or is_picture(Path(name)))
