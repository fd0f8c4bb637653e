"""A bank of two products, calibrated on thirty good images each, and more good images of one of them."""

import shutil

import pytest
from PIL import Image

from support.pictures import saved
from support.settings import FEATURES
from support.trees import mvtec_tree

BANK = [*FEATURES, "model=memory_bank", "model.coreset=0.3", "data.cache=disk"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    from hydra.core.global_hydra import GlobalHydra

    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("bank")
    tree = mvtec_tree(folder / "tree", train=30, size=(80, 72))
    GlobalHydra.instance().clear()
    assert run_command("train", [*BANK, f"data.root={tree}", f"output_dir={folder}/run"]) == 0
    path = folder / "run/checkpoints/last.ckpt"
    GlobalHydra.instance().clear()
    assert run_command("calibrate", [f"ckpt_path={path}", f"output_dir={folder}/report", "rate=0.1", "folds=3"]) == 0
    return path


@pytest.fixture(scope="session")
def more(tmp_path_factory):
    """Sixty good images of a bottle, as those of the training but for their noise, then sixty darker ones."""
    folder = tmp_path_factory.mktemp("more")
    (folder / "dark").mkdir()
    made = mvtec_tree(folder / "tree", categories=["bottle"], train=1, good=60, size=(80, 72), seed=5)
    good = sorted((made / "bottle/test/good").iterdir())
    dark = [saved(folder / "dark" / path.name, Image.open(path).point(lambda value: value * 0.6)) for path in good]
    return good, dark


@pytest.fixture
def arrive(more, tmp_path):
    """Copies pictures into the folder that is watched: `arrive("good", 0, 60)`."""
    (tmp_path / "in").mkdir()

    def call(kind, start, end):
        for path in more[("good", "dark").index(kind)][start:end]:
            shutil.copy(path, tmp_path / "in" / f"{kind}{path.name}")

    return call
