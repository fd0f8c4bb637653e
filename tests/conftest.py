"""Fixtures of all tests: a tree of two products, a copy of it, a small disk, and the command line in-process."""

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time

import absl.logging
import pytest
import torch

from support.browser import chromium
from support.trees import mvtec_tree

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
os.environ.pop("COLUMNS", None)  # of pytest's workers, to which tables would fit

os.environ["UNIAD_CACHE"] = tempfile.mkdtemp(prefix="uniad-cache-")  # neither use nor fill the user's own

# The files that take longest: begun last, one of them would leave the other worker without work.
SLOWEST_FIRST = ("test_ddp", "test_journey", "test_sweeps", "test_search", "test_prediction_ranks", "test_ablations")


BEGUN = time.monotonic()


def pytest_addoption(parser):
    """Let a run end in time on a machine that is slow: what has not begun by then is skipped, and counted as such."""
    parser.addoption("--begin-within", type=float, metavar="MINUTES", help="skip the tests that begin later than this")


def pytest_configure():
    """Keep absl, which TensorBoard brings, from closing pytest's own stream when a server configures logging."""
    absl.logging.get_absl_handler().python_handler.stream = sys.__stderr__


def pytest_unconfigure():
    """Leave nothing behind."""
    shutil.rmtree(os.environ["UNIAD_CACHE"], ignore_errors=True)


def pytest_collection_modifyitems(items):
    """Begin with the slowest files; the others stay in their order."""
    places = {name: place for place, name in enumerate(SLOWEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skip a test that would begin too late, before its fixtures are made."""
    minutes = item.config.getoption("begin_within")
    if minutes is not None and time.monotonic() - BEGUN > 60 * minutes:
        pytest.skip(f"not begun within {minutes:g} minutes (--begin-within)")


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Two products: 9 train images each, 5 test images each, sizes other than the model's."""
    return mvtec_tree(tmp_path_factory.mktemp("tree"), train=9, size=(80, 72))


@pytest.fixture
def copy(tree, tmp_path):
    """A copy of the tree that a test may spoil."""
    return shutil.copytree(tree, tmp_path / "copy")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 4 MB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    gc.collect()  # an expected error keeps what was open where it was raised
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="session")
def browser():
    """The machine's Chromium, one for all tests of a worker: Playwright can be started but once in a process."""
    with chromium() as opened:
        yield opened


@pytest.fixture
def uniad(capfd):
    """Run a command in this process: (status, stdout, stderr)."""
    from hydra.core.global_hydra import GlobalHydra

    from uniad_lightning.command_line.cli import run_command

    def call(name, *overrides):
        GlobalHydra.instance().clear()
        capfd.readouterr()
        status = run_command(name, list(overrides))
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def command(capfd, monkeypatch):
    """Run the whole command line in this process: (status, stdout, stderr)."""
    from uniad_lightning.command_line.cli import main

    def call(*words):
        monkeypatch.setattr("sys.argv", ["uniad", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capfd.readouterr()
        return stopped.value.code, out, err

    return call
