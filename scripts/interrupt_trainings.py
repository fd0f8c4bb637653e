"""Interrupt small trainings at random moments and check that each ends at once with 130 and whole checkpoints.

    python scripts/interrupt_trainings.py DATA_ROOT FOLDER --count 200 [overrides of a small training]

Trainings are forked from one process that has imported everything, so that each moment is within the training. Prints a
line for each that did not end as expected, and at the end their number.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

import uniad_lightning.training.train  # noqa: F401 - what a training imports, once for all
from uniad_lightning.command_line.cli import main as uniad
from uniad_lightning.exit_status import INTERRUPTED

PATIENCE = 60.0  # seconds in which a training has to end; long, for a busy machine


class End(NamedTuple):
    """How an interrupted training ended.

    Attributes:
        moment: seconds after its start at which it was interrupted.
        seconds: how long it ran after that.
        status: its exit status; None if it had to be killed.
        faults: deviations from a correct end, one sentence each.
    """

    moment: float
    seconds: float
    status: int | None
    faults: list[str]


def start(overrides: list[str], log: Path) -> int:
    """Start a training in a process of its own, which prints to `log`; returns its process id."""
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has its background processes ignore it
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["uniad", "train", *overrides]
    status = 1
    try:
        uniad()
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def wait(pid: int, seconds: float) -> int | None:
    """The exit status of a process, None where it does not end in time."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    return None


def interrupt(overrides: list[str], folder: Path, moment: float) -> End:
    """Start a training in `folder`, and interrupt it after `moment` seconds."""
    folder.mkdir(parents=True)
    pid = start([*overrides, f"output_dir={folder}/run"], folder / "log.txt")
    status = wait(pid, moment)
    if status is not None:
        return End(moment, 0.0, status, [f"ended by itself with status {status}"])
    started = time.monotonic()
    os.kill(pid, signal.SIGINT)
    status = wait(pid, PATIENCE)
    seconds = time.monotonic() - started
    if status is None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return End(moment, seconds, status, _faults(status, folder))


def _faults(status: int | None, folder: Path) -> list[str]:
    text = (folder / "log.txt").read_text()
    faults = []
    if status != INTERRUPTED:
        faults.append(f"still ran after {PATIENCE:.0f} s" if status is None else f"ended with status {status}")
    faults += [f"printed {sign!r}" for sign in ("Traceback", "Exception ignored") if sign in text]
    if status == INTERRUPTED and "uniad: interrupted" not in text:
        faults.append("did not print that it was interrupted")
    for path in folder.rglob("*.ckpt"):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a damaged file
            faults.append(f"{path} cannot be loaded: {error}")
    faults += [f"left {path}" for path in folder.rglob("*.tmp")]
    return faults


def run(overrides: list[str], folder: Path, *, count: int, longest: float, seed: int) -> list[End]:
    """Interrupt `count` trainings, each at a random moment of the first `longest` seconds."""
    moments = random.Random(seed)
    ends = []
    for number in range(count):
        end = interrupt(overrides, folder / str(number), moments.uniform(0, longest))
        ends.append(end)
        if end.faults:
            print(f"{folder / str(number)}: interrupted at {end.moment:.3f} s: {'; '.join(end.faults)}", flush=True)
    return ends


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--longest", type=float, default=10.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    options, overrides = parser.parse_known_args()
    overrides = [f"data.root={options.root}", *overrides]
    ends = run(overrides, options.folder, count=options.count, longest=options.longest, seed=options.seed)
    good = [end for end in ends if not end.faults]
    slowest = max((end.seconds for end in ends), default=0.0)
    print(f"{len(good)} of {len(ends)} ended with {INTERRUPTED}, the slowest {slowest:.1f} s after its interrupt")
    sys.exit(len(good) != len(ends))


if __name__ == "__main__":
    main()
