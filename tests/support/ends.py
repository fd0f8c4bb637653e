"""Commands that are ended at a point of their work, each in a process of its own.

A point is the n-th file that is opened to be read, the n-th change of a folder or file, or the n-th call of a network,
as Python's audit hooks and torch's count them: so the same end can be made again, however busy the machine is.
"""

import os
import random
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from support.children import begin, status_of

KINDS = {"write": 4, "read": 1, "network": 2}  # how often each is drawn: changes of files are the delicate points
WAYS = {"kill": 4, "terminate": 2, "interrupt": 3, "memory": 1, "disk": 2}
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "sqlite3.connect", "shutil.rmtree"}
_SIGNALS = {"kill": signal.SIGKILL, "terminate": signal.SIGTERM, "interrupt": signal.SIGINT, "pause": signal.SIGSTOP}
_SPARE = 1 << 20  # bytes of memory that are left
_PATIENCE = 60  # seconds without memory


class Point(NamedTuple):
    """Where and how a command is ended: at event `number` of a kind, or `delay` seconds after it."""

    way: str
    kind: str
    number: int
    delay: float


class Ended(NamedTuple):
    """How a command ended: its exit status, negative for a signal, what it printed, and how many events it had."""

    status: int
    printed: str
    counts: dict


def draw(seed: int, counts: dict) -> Point:
    """A point of a command that has so many events of each kind."""
    drawn = random.Random(seed)
    (way,) = drawn.choices(list(WAYS), list(WAYS.values()))
    kinds = [kind for kind in KINDS if counts.get(kind)]
    (kind,) = drawn.choices(kinds, [KINDS[kind] for kind in kinds])
    delay = drawn.choice([0.0, 0.0, drawn.uniform(0, 3e-3)])  # also within the writing of a file
    return Point(way, kind, drawn.randint(1, counts[kind]), delay)


@contextmanager
def paused(words, folder: Path, kind: str, number: int) -> Iterator[list[Ended]]:
    """Run `uniad` with `words` up to an event and hold it there within the block; afterwards the list has its end."""
    folder.mkdir(parents=True, exist_ok=True)
    log, ended = folder.parent / f"{folder.name}.log", []
    process = begin(_child, words, log, folder, Point("pause", kind, number, 0.0), None, True)
    while process.is_alive() and psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        time.sleep(0.01)
    assert process.is_alive(), f"{process.exitcode} {log.read_text()}"
    try:
        yield ended
    finally:
        os.kill(process.pid, signal.SIGCONT)
        ended.append(Ended(status_of(process), log.read_text(), {}))


def run(words, folder: Path, point: Point | None = None, *, counted: bool = False, trace: bool = True) -> Ended:
    """Run `uniad` with `words`, ended at a point where one is given; `folder` is what it writes to.

    Without `trace` the calls of networks are not counted: a graph would be traced with the counting in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder.parent.parent  # of the small disk, where there is one
    log, counts = beside / f"{folder.name}.log", beside / f"{folder.name}.counts"
    status = status_of(begin(_child, words, log, folder, point, counts if counted else None, trace))
    numbers = dict(line.split() for line in counts.read_text().splitlines()) if counted else {}
    return Ended(status, log.read_text(errors="replace"), {kind: int(number) for kind, number in numbers.items()})


def _child(words, log: Path, folder: Path, point: Point | None, counts: Path | None, trace: bool) -> None:
    """The whole life of the process."""
    events, status = _Events(folder, point), 1
    try:
        from uniad_lightning.command_line.cli import main

        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(file, number)
            setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))
        sys.argv = ["uniad", *words]
        if trace:
            torch.nn.modules.module.register_module_forward_pre_hook(events.network)
        sys.addaudithook(events.audit)
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        if counts is not None:
            counts.write_text("".join(f"{kind} {number}\n" for kind, number in events.counts.items()))
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


class _Events:
    """Counts the events of this process, and ends it at a point."""

    def __init__(self, folder: Path, point: Point | None):
        self.folder = folder
        self.point = point
        self.counts: Counter = Counter()

    def audit(self, event, arguments) -> None:
        if event in _CHANGES:
            self._count("write")
        elif event == "open" and isinstance(arguments[0], str | bytes) and not self._is_code(os.fsdecode(arguments[0])):
            self._count("write" if arguments[2] & (os.O_WRONLY | os.O_RDWR) else "read")

    def network(self, *_) -> None:
        self._count("network")

    @staticmethod
    def _is_code(path: str) -> bool:
        return path.endswith((".py", ".pyc", ".so")) or path.startswith(("/proc", "/sys", "/dev"))

    def _count(self, kind: str) -> None:
        self.counts[kind] += 1
        point = self.point
        if point is None or (kind, self.counts[kind]) != (point.kind, point.number):
            return
        self.point = None
        if point.delay:
            threading.Timer(point.delay, self._end, [point.way]).start()
        else:
            self._end(point.way)

    def _end(self, way: str) -> None:
        if way == "memory":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + _SPARE
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            signal.alarm(_PATIENCE)  # without memory to start it a thread may be waited for without end
        elif way == "disk":
            fill(self.folder.parent)
        else:
            os.kill(os.getpid(), _SIGNALS[way])


def fill(folder: Path) -> None:
    """Take all that is free on the disk of `folder`."""
    with (folder / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(1 << 16))
        except OSError:
            return
