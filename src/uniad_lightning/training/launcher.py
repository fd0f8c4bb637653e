"""The processes of one training on this machine: when one of them ends early, all do, and its end is told."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lightning as L
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from uniad_lightning.errors import complain
from uniad_lightning.exit_status import FAILED, INTERRUPTED, MISTAKE
from uniad_lightning.results.run_folder import LAST

_LOOK = 0.2  # seconds between two looks at the others
_QUIET = (0, INTERRUPTED, -signal.SIGINT)
_SETTLE = 2.0  # seconds in which the failure of another process comes to light that made this one fail


def watch_ranks(trainer: L.Trainer, folder: Path) -> None:
    """Have `trainer`, where it launches processes for the run in `folder`, end when one of them does."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        trainer.strategy._launcher = WatchedLauncher(launcher, folder)


def end_ranks(trainer: L.Trainer) -> None:
    """End the other processes after a failure in this one; where theirs came first, this does not return."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, WatchedLauncher):
        launcher.settle()


class WatchedLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher with another watch over its processes.

    Lightning's own kills the first process, too, so that nobody says why, and the exit status is that of a kill.
    """

    def __init__(self, launcher: _SubprocessScriptLauncher, folder: Path):
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self.folder = folder
        self.others: list[subprocess.Popen] = []
        self._ending = False

    def _call_children_scripts(self) -> None:
        super()._call_children_scripts()
        self.others, self.procs = self.procs, []  # Lightning's own watch over `procs` has nothing left to do
        threading.Thread(target=self._watch, daemon=True).start()

    def kill(self, signum: int) -> None:
        """Send a signal to the other processes, whose end is no failure then; Lightning passes on what it gets."""
        self._ending = True
        for process in self.others:
            process.send_signal(signum)

    def settle(self) -> None:
        """Give the others the time to show that they failed first, then kill them."""
        begun = time.monotonic()
        while time.monotonic() < begun + _SETTLE:
            if self._failures() and not self._ending:
                threading.Event().wait()  # for the watch to end this process
            time.sleep(_LOOK)
        self.kill(signal.SIGKILL)

    def _failures(self) -> dict[int, int]:
        """The exit statuses of the other processes that have failed, by rank; the first itself tells an interrupt."""
        codes = {rank: process.poll() for rank, process in enumerate(self.others, start=1)}
        return {r: code for r, code in codes.items() if code is not None and code not in _QUIET}

    def _watch(self) -> None:
        while not self._failures():
            if all(process.poll() is not None for process in self.others):
                return
            time.sleep(_LOOK)
        time.sleep(_LOOK)  # those that failed because of the first one may have been seen before it
        if self._ending:
            return
        # Whoever was killed, or says that the user is wrong, is the cause; status 1 may be the loss of the others.
        rank, code = min(self._failures().items(), key=lambda item: (item[1] > 0, item[1] != MISTAKE))
        self.kill(signal.SIGKILL)
        complain(f"process {rank} of {self.num_processes} {_end(code)}, and the run ends with it{self._remedy()}")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(MISTAKE if code == MISTAKE else FAILED)

    def _remedy(self) -> str:
        last = self.folder / LAST
        return f"; resume it with ckpt_path={last}" if last.is_file() else ""


def _end(code: int) -> str:
    if code > 0:
        return f"failed with exit status {code} (its reason is above)"
    reason = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}{reason}"
