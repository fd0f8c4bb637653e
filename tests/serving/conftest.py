"""A small calibrated detector, pictures for it, and a server that all fast tests share."""

import shutil

import pytest

from support.servers import InThread
from support.settings import SMALL
from support.trees import mvtec_tree


@pytest.fixture(scope="session")
def served_tree(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("served"), train=40, good=6, size=(80, 72))


@pytest.fixture(scope="session")
def checkpoint(served_tree, tmp_path_factory):
    """Of two epochs, with boundaries."""
    from hydra.core.global_hydra import GlobalHydra

    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("runs")
    words = [*SMALL, f"data.root={served_tree}", "data.held_out=0.3", f"output_dir={folder}/run", "standardize=true"]
    GlobalHydra.instance().clear()
    assert run_command("train", words) == 0
    path = folder / "run/checkpoints/last.ckpt"
    GlobalHydra.instance().clear()
    assert run_command("calibrate", [f"ckpt_path={path}", f"output_dir={folder}/report", "rate=0.1"]) == 0
    return path


@pytest.fixture
def own_checkpoint(checkpoint, tmp_path):
    """A copy that a test may replace."""
    return shutil.copy(checkpoint, tmp_path / "own.ckpt")


@pytest.fixture(scope="session")
def pictures(served_tree):
    found = sorted((served_tree / "bottle/test").rglob("*.png"))
    assert len(found) > 6
    return found


@pytest.fixture(scope="session")
def server(checkpoint):
    with InThread(checkpoint) as running:
        yield running
