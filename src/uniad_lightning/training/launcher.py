"""The processes of one training on this machine: when one ends early, all are ended, and the reason is reported."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from shlex import quote

import lightning as L

# Private: Lightning has no public launcher to derive from, and no hook for the end of a process that it launched.
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from uniad_lightning.errors import print_stderr
from uniad_lightning.exit_status import FAILED, INTERRUPTED, MISTAKE
from uniad_lightning.results.run_folder import LAST

_POLL = 0.2  # seconds between two checks of the other processes
_NO_FAILURE = (0, INTERRUPTED, -signal.SIGINT)  # exit statuses; the first process reports an interrupt itself
_GRACE = 2.0  # seconds in which a failure of another process shows that made this one fail


def watch_ranks(trainer: L.Trainer, folder: Path) -> None:
    """Make `trainer`, if it launches processes for the run in `folder`, end all of them when one ends early."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        # Private: a strategy creates its launcher itself, and the public `launcher` has no setter.
        trainer.strategy._launcher = WatchedLauncher(launcher, folder)


def end_ranks(trainer: L.Trainer) -> None:
    """End the other processes after a failure in this one; does not return if one of them failed first."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, WatchedLauncher):
        launcher.end_others()


class WatchedLauncher(_SubprocessScriptLauncher):
    """Lightning's launcher, watching its processes in another way.

    Lightning also kills the first process, so that no reason is reported, and the exit status is that of a kill.
    """

    def __init__(self, launcher: _SubprocessScriptLauncher, folder: Path):
        super().__init__(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        self.folder = folder
        self.others: list[subprocess.Popen] = []
        self._ending = False

    def _call_children_scripts(self) -> None:
        # Private: `launch` calls this and then starts Lightning's watch over `procs`, with no public hook in between.
        super()._call_children_scripts()
        self.others, self.procs = self.procs, []  # leaves Lightning's watch nothing to do
        threading.Thread(target=self._watch, daemon=True).start()

    def kill(self, signum: int) -> None:
        """Send a signal to the other processes, whose end is then no failure; Lightning forwards signals by this."""
        self._ending = True
        for process in self.others:
            process.send_signal(signum)

    def end_others(self) -> None:
        """Wait for a failure of the others that came first, then kill them."""
        start = time.monotonic()
        while time.monotonic() < start + _GRACE:
            if self._failures() and not self._ending:
                threading.Event().wait()  # until the watching thread ends this process
            time.sleep(_POLL)
        self.kill(signal.SIGKILL)

    def _failures(self) -> dict[int, int]:
        """The exit statuses of the other processes that have failed, by rank."""
        codes = {rank: process.poll() for rank, process in enumerate(self.others, start=1)}
        return {r: code for r, code in codes.items() if code is not None and code not in _NO_FAILURE}

    def _watch(self) -> None:
        while not self._failures():
            if all(process.poll() is not None for process in self.others):
                return
            time.sleep(_POLL)
        time.sleep(_POLL)  # one that failed because of another may have ended before that one
        if self._ending:
            return
        # A process that was killed or reports a user's mistake is the cause; status 1 may be a consequence.
        rank, code = min(self._failures().items(), key=lambda item: (item[1] > 0, item[1] != MISTAKE))
        self.kill(signal.SIGKILL)
        print_stderr(
            f"process {rank} of {self.num_processes} {_describe(code)}, and the run ends with it{self._remedy()}"
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(MISTAKE if code == MISTAKE else FAILED)

    def _remedy(self) -> str:
        command = f"uniad train {quote(f'resume={self.folder}')}"
        return f"; resume it with: {command}" if (self.folder / LAST).is_file() else ""


def _describe(code: int) -> str:
    if code > 0:
        return f"failed with exit status {code} (its reason is above)"
    reason = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
    return f"was killed by signal {-code}{reason}"
