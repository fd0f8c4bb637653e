"""Processes that begin in a moment: forked from one that has imported everything and has no threads.

A fork of the test process itself has the locks of its threads, but not the threads, and may hang or crash.
"""

import multiprocessing
import os
from multiprocessing.process import BaseProcess

CONTEXT = multiprocessing.get_context("forkserver")
_COMMANDS = (
    "calibration.after_training", "exporting.export", "prediction.predict", "sweeps.search", "training.evaluate",
    "training.precompute_features",
)  # fmt: skip
CONTEXT.set_forkserver_preload(["uniad_lightning.command_line.cli", *(f"uniad_lightning.{name}" for name in _COMMANDS)])


def begin(function, *arguments) -> BaseProcess:
    """Call `function` in a new process, with the environment of this one. Both must be importable and picklable."""
    process = CONTEXT.Process(target=_call, args=(dict(os.environ), function, arguments))
    process.start()
    return process


def status_of(process: BaseProcess) -> int:
    """Wait for the end of a process; its exit status, negative for a signal."""
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _call(environment, function, arguments):
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)
