"""`uniad predict` for a long time: of paths on the standard input, again and again over a growing folder, watching."""

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil
from long_runs.feeding import Feeder
from long_runs.journal import Journal, Picture, faults_of
from long_runs.measuring import Pace, Sampler, held_on_disk

UNIAD = [sys.executable, "-m", "uniad_lightning.command_line.cli"]
ROWS = ("predictions.jsonl", "predictions.csv", "overlays", "masks")
PATIENCE = 120  # seconds for the last rows, and for a start
LATER = 15  # seconds in which a second row of a file would come: a watched folder is scanned every 10


@dataclass
class Setting:
    """How long, how busy, of which random numbers, with which detector."""

    checkpoint: Path
    pictures: list[Picture]
    folder: Path
    seconds: float
    share: float
    seed: int


@dataclass
class Outcome:
    """What was counted, what was wrong, and the samples."""

    counts: dict[str, object] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    samples: list[tuple[float, ...]] = field(default_factory=list)


@contextmanager
def running(setting: Setting, *words: str, stdin: int | None = None, cwd: Path | None = None) -> Iterator[psutil.Popen]:
    """The command in a process with a temporary folder of its own, `tmp`; what it prints goes to `log.txt`."""
    (setting.folder / "tmp").mkdir(exist_ok=True)
    own = {"TMPDIR": str(setting.folder / "tmp"), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (setting.folder / "log.txt").open("ab") as log:
        child = psutil.Popen(
            [*UNIAD, *words, "device=cpu"], stdin=stdin, stdout=log, stderr=log, cwd=cwd, env={**os.environ, **own}
        )
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


def wait_for(reached: Callable[[], bool], child: psutil.Popen, what: str) -> None:
    """Until `reached()`; stops the benchmark where the child ends before, or it takes too long."""
    end = time.monotonic() + PATIENCE
    while not reached():
        if child.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"{what}: not reached; status {child.returncode}, see log.txt in the folder")
        time.sleep(0.2)


def watch(setting: Setting) -> Outcome:
    """`watch=true`, interrupted at the end; then again with `resume=true`, which may add nothing."""
    source, results = setting.folder / "watched", setting.folder / "results"
    journal, outcome = Journal(results / ROWS[0]), Outcome()
    feeder = Feeder(source, setting.pictures, journal, lambda name: None, setting.seed)
    words = ("predict", f"ckpt_path={setting.checkpoint}", f"input={source}", f"output_dir={results}", "watch=true")
    with running(setting, *words) as child:
        _feed(setting, feeder, child, outcome, lambda: None)
        child.send_signal(signal.SIGINT)
        _expect_status(outcome, child, 130)
    _check(feeder, results, setting, outcome)
    before = journal.rows
    with running(setting, *words, "resume=true", "stop_after_idle=3") as child:
        _expect_status(outcome, child, feeder.status)
    journal.read()
    if journal.rows != before:
        outcome.faults.append(f"resume=true: {journal.rows - before} rows were added, expected none")
    return outcome


def predict(setting: Setting) -> Outcome:
    """`input=-` all the time; every now and then a call with `resume=true` over a folder that has grown."""
    source, results = setting.folder / "listed", setting.folder / "results"
    journal, outcome = Journal(results / ROWS[0]), Outcome()
    words = ("predict", f"ckpt_path={setting.checkpoint}", "input=-", f"output_dir={results}")
    lock = threading.Lock()
    source.mkdir()
    with running(setting, *words, stdin=subprocess.PIPE, cwd=source) as child:
        paths: IO[bytes] = child.stdin

        def announce(name: str) -> None:
            with lock:
                paths.write(f"{name}\n".encode())
                paths.flush()

        feeder = Feeder(source, setting.pictures, journal, announce, setting.seed)
        calls = Calls(setting, outcome)
        _feed(setting, feeder, child, outcome, calls.call_when_due)
        paths.close()
        _expect_status(outcome, child, feeder.status)
    _check(feeder, results, setting, outcome)
    _check(calls.feeder, calls.results, setting, outcome)
    outcome.counts["calls"] = calls.counts()
    return outcome


class Calls:
    """`uniad predict ... resume=true` over one folder, to which files are added between the calls."""

    def __init__(self, setting: Setting, outcome: Outcome):
        self.setting, self.outcome = setting, outcome
        self.results = setting.folder / "results_of_calls"
        self.feeder = Feeder(
            setting.folder / "grown", setting.pictures, Journal(self.results / ROWS[0]), lambda name: None,
            setting.seed + 1, without=("replaced_same_time",), kept=1_000_000,
        )  # fmt: skip
        self.peaks: list[float] = []
        self._every = min(setting.seconds / 5, 300.0)
        self._due = time.monotonic()

    def call_when_due(self) -> None:
        """Add files, call, and look at the rows, where it is time."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self._every
        for _ in range(3):
            self.feeder.burst()
        self.feeder.wait()
        words = ("predict", f"ckpt_path={self.setting.checkpoint}", f"input={self.feeder.folder}", "resume=true")
        with running(self.setting, *words, f"output_dir={self.results}") as child:
            _, status, used = os.wait4(child.pid, 0)
        self.peaks.append(round(used.ru_maxrss / 1e3, 1))
        if os.waitstatus_to_exitcode(status) != self.feeder.status:
            self.outcome.faults.append(f"call {len(self.peaks)}: status {os.waitstatus_to_exitcode(status)}")
        if not self.feeder.all_done():
            self.outcome.faults.append(f"call {len(self.peaks)}: a file of the folder has no row")

    def counts(self) -> dict[str, object]:
        """The part of the record."""
        feeder = self.feeder
        return {"number": len(self.peaks), "rows": feeder.journal.rows, "moves": dict(feeder.moves),
                "peak_memory_mb": [self.peaks[0], self.peaks[-1]]}  # fmt: skip


def _feed(setting: Setting, feeder: Feeder, child: psutil.Popen, outcome: Outcome, between: Callable[[], None]) -> None:
    """Feed the child, and wait for the last row, and a little longer."""
    temporary, results = setting.folder / "tmp", feeder.journal.path.parent
    wait_for((results / ROWS[1]).exists, child, "the start")
    sampler = Sampler(child, lambda: held_on_disk(results, temporary, without=ROWS))
    pace, end = Pace(child, setting.share), time.monotonic() + setting.seconds
    while time.monotonic() < end:
        feeder.burst()
        between()
        time.sleep(max(pace.pause(), feeder.random.uniform(0.5, 4)))
        if child.poll() is not None:
            raise SystemExit(f"the command ended with status {child.returncode}; see log.txt in the folder")
    feeder.wait()
    last = time.monotonic() + PATIENCE
    while not feeder.all_done() and time.monotonic() < last:
        time.sleep(0.5)
    time.sleep(LATER)
    feeder.journal.read()
    outcome.counts.update(processor_share=round(pace.used, 3))
    sampler.stop()
    outcome.samples = sampler.rows


def _expect_status(outcome: Outcome, child: psutil.Popen, status: int) -> None:
    child.wait(PATIENCE)
    if child.returncode != status:
        outcome.faults.append(f"{' '.join(child.args[3:5])}: status {child.returncode}, expected {status}")


def _check(feeder: Feeder, results: Path, setting: Setting, outcome: Outcome) -> None:
    """Rows against what was fed, the table against the rows, drawn files against the rows, nothing else left."""
    journal = feeder.journal
    journal.read()
    outcome.faults += faults_of(feeder.expected, journal.scores)
    with (results / ROWS[1]).open(newline="", encoding="utf-8") as file:
        lines = sum(1 for _ in csv.DictReader(file))
    if lines != journal.rows:
        outcome.faults.append(f"{results.name}/predictions.csv: {lines} rows, {journal.rows} in the .jsonl")
    drawn = [str(path.relative_to(results)) for name in ROWS[2:] for path in (results / name).rglob("*.*")]
    if sorted(drawn) != sorted(journal.drawn):
        outcome.faults.append(f"{results.name}: {len(drawn)} overlays and masks, {len(journal.drawn)} in the rows")
    left = [path.name for path in (setting.folder / "tmp").rglob("*")]
    if left:
        outcome.faults.append(f"left in the temporary folder: {', '.join(left[:5])}")
    if b"Traceback" in (setting.folder / "log.txt").read_bytes():
        outcome.faults.append("a traceback in log.txt")
    fed = sum(map(len, feeder.expected.values()))
    outcome.counts.setdefault("files", fed)
    outcome.counts.setdefault("rows", journal.rows)
    outcome.counts.setdefault("moves", dict(sorted(feeder.moves.items())))
