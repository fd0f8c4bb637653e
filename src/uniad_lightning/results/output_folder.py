"""Locks an output folder for one run at a time, and refuses a folder with files that no run has written."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.written_files import MARK, begin, end, is_held, is_marked, mark, remove_unfinished, written

Result = TypeVar("Result")

_LOCK = "lock"
# Files of sweep jobs and file systems, besides hidden ones.
_HARMLESS = ("job.json", "log.txt", "lost+found")
_DEPTH = 3  # how far below a folder other runs may lie, such as <sweep>/<job>
# Files of version 0.1.0, which kept no list; its heatmaps were named as the categories of metrics.json.
_EARLIER = (
    "config.yaml",
    "metrics.json",
    "results.csv",
    "calibration.json",
    "outcomes.csv",
    "scores.png",
    "checkpoints/last.ckpt",
    "checkpoints/best_on_test.ckpt",
    "maps/[0-9]*.npz",
)


def is_first() -> bool:
    """Whether this is the process of a run that writes for all."""
    return getattr(rank_zero_only, "rank", 0) == 0


def holds_output_dir(command: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """Decorate `command(cfg)` to hold `cfg.output_dir` while it runs."""

    @wraps(command)
    def held(cfg: Any) -> Result:
        with hold(Path(cfg.output_dir)):
            return command(cfg)

    return held


def holds_run(command: Callable[[Any], Result]) -> Callable[[Any], Result]:
    """Decorate `command(cfg)`, which changes `cfg.ckpt_path`, to hold the checkpoint's run folder while it runs.

    Nothing is held where it lies in none. Raises InputError where another run holds it, such as the training itself.
    """

    @wraps(command)
    def held(cfg: Any) -> Result:
        with _hold_run_of(expand(cfg.ckpt_path)):
            return command(cfg)

    return held


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Make `folder` and keep other runs out of it until the block or the process ends; only the first process locks.

    Raises InputError where another run holds it, and where it has a file that no run of this package has written.
    """
    if is_held(folder):
        yield
        return
    with _held(folder, _lock(folder) if is_first() else None):
        yield


@contextmanager
def hold_free(folder: Path) -> Iterator[Path]:
    """Hold `folder` or, where it is not empty, the first free one of `<folder>-2`, `<folder>-3`."""
    chosen, lock = folder, _lock_if_free(folder)
    for number in count(2):
        if lock is not None:
            break
        chosen = folder.with_name(f"{folder.name}-{number}")
        lock = _lock_if_free(chosen)
    with _held(chosen, lock):
        yield chosen


@contextmanager
def _hold_run_of(checkpoint: Path) -> Iterator[None]:
    folder = checkpoint.parent.parent
    if is_held(folder) or not is_marked(folder):
        yield
        return
    try:
        lock = _lock(folder)
    except InputError:
        raise InputError(f"ckpt_path={checkpoint}: another run writes in {folder}; wait for its end") from None
    with _held(folder, lock):
        yield


@contextmanager
def _held(folder: Path, lock: FileLock | None) -> Iterator[None]:
    begin(folder, first=lock is not None)
    try:
        yield
    finally:
        end(folder)
        if lock is not None:
            _leave(folder)
            lock.release()


def _lock_if_free(folder: Path) -> FileLock | None:
    try:
        lock = _lock(folder)
    except InputError:  # another run holds it, or it has other files
        return None
    if set(os.listdir(folder)) <= {MARK}:
        return lock
    lock.release()
    return None


def _lock(folder: Path) -> FileLock:
    """The acquired lock of `folder`, which is marked."""
    refuse_foreign(folder)
    (folder / MARK).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / MARK / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"output_dir={folder}: another run writes there; wait for its end, or choose another output_dir"
        ) from None
    mark(folder, _of_earlier_version(folder) or [])
    remove_unfinished(folder)
    return lock


def _leave(folder: Path) -> None:
    """Remove the mark of a folder in which nothing was written; to be called while it is locked."""
    with suppress(OSError):  # the folder is gone or read-only: the run has reported that
        if not written(folder) and set(os.listdir(folder)) <= {MARK}:
            for path in (folder / MARK).iterdir():
                path.unlink()
            (folder / MARK).rmdir()


def refuse_foreign(folder: Path) -> None:
    """Raises InputError that names a file which no run of this package has written, unless `folder` is marked.

    Folders of other runs, hidden files, and a file that this process prints to are accepted.
    """
    if not folder.is_dir() or is_marked(folder) or _of_earlier_version(folder) is not None:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith(".") or entry.name in _HARMLESS or _is_printed_to(entry):
            continue
        if not (entry.is_dir() and _is_of_runs(Path(entry.path), _DEPTH)):
            raise InputError(
                f"output_dir={folder} holds {entry.name}, which no run of uniad has written; choose another "
                f"output_dir, such as {folder / 'run'}"
            )


def _is_printed_to(entry: os.DirEntry) -> bool:
    """Whether this process prints to the file, as in `uniad ... > FILE`."""
    printed = set()
    for stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            status = os.fstat(stream.fileno())  # type: ignore[union-attr]
            printed.add((status.st_dev, status.st_ino))
    status = entry.stat(follow_symlinks=False)
    return (status.st_dev, status.st_ino) in printed


def _is_of_runs(folder: Path, depth: int) -> bool:
    """Whether there is a run in or below `folder`, or `folder` is empty."""
    if is_marked(folder) or (folder / "job.json").is_file() or _of_earlier_version(folder) is not None:
        return True
    entries = list(os.scandir(folder))
    below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    if not entries:
        return True
    return depth > 0 and any(_is_of_runs(path, depth - 1) for path in below)


def _of_earlier_version(folder: Path) -> list[str] | None:
    """The files that version 0.1.0 has written in `folder`, which has no list; None where it has not written there."""
    heads = {"config.yaml": r"(?ms)^seed: .*^output_dir: ", "outcomes.csv": "kind,(product|category),boundary,"}
    known = any(re.search(head, _head(folder / name)) for name, head in heads.items())
    if not known and not (folder / "decoder.ckpt").is_file():
        return None
    # Of any category, whatever it is called: `os.path.isfile` says no to what cannot be the name of a file.
    heatmaps = [f"heatmaps/{name}.png" for name in _categories(folder / "metrics.json")]
    files = {path.relative_to(folder).as_posix() for pattern in _EARLIER for path in folder.glob(pattern)}
    return sorted(files | {name for name in heatmaps if os.path.isfile(folder / name)}) if known else []


def _head(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(100_000)
    except OSError:
        return ""


def _categories(path: Path) -> list[str]:
    try:
        return list(json.loads(path.read_text())["categories"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
