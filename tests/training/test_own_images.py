"""What a training on own images has by default, and that each training says at its start what is coming."""

import shutil

import pytest
from hydra import compose, initialize_config_dir

import uniad_lightning.training.train  # noqa: F401 - what the YAML files compute
from support.configs import CONF
from support.settings import FEATURES, SMALL


@pytest.fixture
def photos(tree, tmp_path):
    """Own images in folders as they lie: two products of 9 good images, one with two kinds of defects."""
    for name in ("bottle", "cable"):
        shutil.copytree(tree / name / "train" / "good", tmp_path / "photos" / name / "good")
    for defect in ("scratch", "hole"):
        shutil.copytree(tree / "bottle" / "test" / defect, tmp_path / "photos" / "bottle" / defect)
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("data=folder", (-1, 2000, 8)),
        ("data=mix data.source.parts={a:x}", (-1, 2000, 8)),
        ("experiment=parts", (-1, 2000, 8)),
        ("data=mvtec", (1000, -1, 64)),
        ("data=mvtec for_data=folder", (-1, 2000, 8)),
        ("experiment=mvtec", (1000, -1, 64)),
        ("experiment=demo", (32, -1, 8)),
        ("experiment=demo data=folder", (32, -1, 8)),
        ("data=folder trainer.max_epochs=30", (30, -1, 8)),
        ("data=folder trainer.max_epochs=30 trainer.max_steps=50", (30, 50, 8)),
        ("experiment=parts trainer.max_epochs=30 data.batch_size=3", (30, -1, 3)),
        ("data=folder trainer=smoke", (-1, 2, 8)),
        ("experiment=parts trainer=smoke", (-1, 2, 8)),
        ("experiment=parts trainer=smoke trainer.max_steps=5", (-1, 5, 8)),
        ("data=folder model=memory_bank", (1, -1, 8)),
        ("data=folder model=padim trainer=cpu", (1, -1, 8)),
    ],
)
def test_own_images_have_a_number_of_steps_unless_something_else_is_said(words, expected):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*words.split(), "data.root=x"])
    assert (cfg.trainer.max_epochs, cfg.trainer.max_steps, cfg.data.batch_size) == expected


@pytest.mark.parametrize(
    ("words", "window"),
    [
        ("data=folder", 3),
        ("data=mix data.source.parts={a:x}", 3),
        ("data=mvtec", 1),  # the paper
        ("experiment=demo", 1),
        ("data=folder model=mlp", 3),
        ("data=folder model=padim", 1),
        ("data=folder backbone.window=1", 1),
        ("data=mvtec model=memory_bank", 3),
    ],
)
def test_features_of_own_images_are_averaged_where_the_method_allows_it(words, window):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose("train", [*words.split(), "data.root=x"]).backbone.window == window


def coming(out):
    return [line for line in out.splitlines() if line.startswith("training: ")]


def test_a_training_says_what_is_coming(uniad, photos, tmp_path):
    small = [word for word in SMALL if not word.startswith("trainer.max_epochs")]
    words = [*small, "data=folder", f"data.root={photos}", "data.held_out=0", "trainer.max_steps=5"]
    status, out, err = uniad("train", *words, f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert coming(out) == ["training: 5 steps of 4 images, 1 epoch of 14 images of 2 categories"]
    status, out, err = uniad("train", *words, "trainer.accumulate_grad_batches=3", f"output_dir={tmp_path}/more")
    assert status == 0, err
    assert coming(out) == ["training: 5 steps of 12 images, 5 epochs of 14 images of 2 categories"]


def test_a_method_of_one_pass_takes_own_images_as_before(uniad, photos, tmp_path):
    words = [*FEATURES, "model=memory_bank", "data=folder", f"data.root={photos}", "data.held_out=0"]
    status, out, err = uniad("train", *words, f"output_dir={tmp_path}/bank")
    assert status == 0, err
    assert coming(out) == ["training: one pass over 14 images of 2 categories"]
