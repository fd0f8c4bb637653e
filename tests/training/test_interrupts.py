"""An interrupt ends a run wherever it arrives: in a finaliser, in a callback, in what catches everything."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import lightning as L
import pytest

from support.paths import ROOT
from support.settings import SMALL, UNIAD

pytestmark = pytest.mark.slow

# Each way keeps the first interrupt to itself, as Python or a library would.
WAYS = """
import ctypes, os, signal, sys, time, weakref

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):
        pass

class Finaliser:
    def __del__(self):
        interrupt()

class Thing:
    pass

def finaliser():
    Finaliser()

def weak_reference():
    thing = Thing()
    reference = weakref.ref(thing, interrupt)
    del thing

def from_c():
    ctypes.CFUNCTYPE(None)(interrupt)()

def caught():
    try:
        interrupt()
    except BaseException:
        pass

def another_error():
    try:
        interrupt()
    except BaseException:
        raise RuntimeError("something else") from None
"""
exec(WAYS)

PROGRAM = (
    WAYS
    + """
from uniad_lightning.training.interrupts import end_if_interrupted, keep_interrupts
try:
    with keep_interrupts():
        globals()[sys.argv[1]]()
        for _ in range(200):
            time.sleep(0.05)
            if sys.argv[1] == "caught":
                end_if_interrupted()
except KeyboardInterrupt:
    print("interrupted")
else:
    print("lost")
print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, sys.unraisablehook is sys.__unraisablehook__)
"""
)


def started(command, **options):
    """A process that does not ignore interrupts, as one that a shell starts in the background would."""
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), **options,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["finaliser", "weak_reference", "from_c", "caught"])
def test_an_interrupt_that_is_dropped_arrives_all_the_same(way):
    out, err = started([sys.executable, "-c", PROGRAM, way]).communicate(timeout=60)
    assert out.split() == ["interrupted", "True", "True"]
    assert err == ""


class Interrupting(L.Callback):
    """Has an interrupt kept from the training after some steps."""

    def __init__(self, *, way):
        self.way = way

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 6:
            globals()[self.way]()


@pytest.mark.parametrize("way", ["finaliser", "caught", "another_error"])
def test_a_training_ends_by_an_interrupt_that_was_kept_from_it(tree, tmp_path, way):
    words = [*SMALL, "trainer.max_epochs=3000", f"data.root={tree}", f"output_dir={tmp_path}/run"]
    words += ["+callbacks.x._target_=test_interrupts.Interrupting", f"+callbacks.x.way={way}"]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = started([UNIAD, "train", *words], env={**os.environ, "PYTHONPATH": paths})
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "uniad: interrupted" in err
    assert "Traceback" not in err
    steps = max(int(done) for done in re.findall(r"(\d+)/12000", err))
    assert steps < 1000  # of 12000


def test_trainings_interrupted_at_random_moments_end_at_once(tree, tmp_path):
    words = [*SMALL, "trainer.max_epochs=3000", "--count", "6", "--longest", "6"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/interrupt_trainings.py", tree, tmp_path / "runs", *words],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 ended with 130" in done.stdout
