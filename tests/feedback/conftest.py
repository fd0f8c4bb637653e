"""Predictions of photographs from a line, by a bank whose boundary calls some of the good ones defective."""

import shutil

import pytest

from support.line_photos import line_photos
from support.settings import FEATURES
from uniad_lightning.command_line.cli import run_command


@pytest.fixture(scope="session")
def line(tree, tmp_path_factory):
    """The folders `bank` (a training), `photos` and `out` (their predictions)."""
    folder = tmp_path_factory.mktemp("line")
    line_photos(folder / "photos")
    words = [*FEATURES, "model=memory_bank", "model.coreset=0.3", f"data.root={tree}", "data.held_out=0.3"]
    assert run_command("train", [*words, "calibrate=true", f"output_dir={folder}/bank"]) == 0
    words = [f"ckpt_path={folder}/bank", f"input={folder}/photos", f"output_dir={folder}/out", "overlays=none"]
    assert run_command("predict", [*words, "device=cpu"]) == 0
    return folder


@pytest.fixture
def out(line, tmp_path):
    """A copy of the predictions without verdicts."""
    return shutil.copytree(line / "out", tmp_path / "out")
