"""What `evaluate` and `calibrate` test: all that is labelled and was not trained on, and no train folder is needed."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.layouts import (
    btad_tree,
    kolektor_tree,
    mvtec_3d_tree,
    mvtec_ad2_tree,
    mvtec_loco_tree,
    real_iad_tree,
    visa_tree,
)
from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.command_line.cli import run_command
from uniad_lightning.data.layouts.btad import list_btad
from uniad_lightning.data.layouts.json_lines import list_meta
from uniad_lightning.data.layouts.kolektor import list_kolektor_sdd
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.layouts.mvtec_3d import list_mvtec_3d
from uniad_lightning.data.layouts.mvtec_ad2 import list_mvtec_ad2
from uniad_lightning.data.layouts.mvtec_loco import list_mvtec_loco
from uniad_lightning.data.layouts.real_iad import list_real_iad
from uniad_lightning.data.layouts.visa import list_visa
from uniad_lightning.errors import InputError


def photos(root: Path, *, good: int, bent: int, seed: int) -> Path:
    """One product in folders as they lie."""
    rng = np.random.default_rng(seed)
    for kind, count in (("good", good), ("bent", bent)):
        (root / "bolt" / kind).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 90, (64, 64, 3)) + (120 if kind == "bent" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(root / "bolt" / kind / f"{i:03d}.png")
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint of data=folder: its folder, the photos it was trained on, 8 of 12 good ones."""
    folder = tmp_path_factory.mktemp("trained")
    root = photos(folder / "photos", good=12, bent=3, seed=0)
    given = ["data=folder", f"data.root={root}", "data.batch_size=2", "trainer.max_epochs=1", "data.held_out=0.2"]
    assert run_command("train", [*SMALL, *given, f"output_dir={folder}/run"]) == 0
    return folder


def images_tested(folder: Path, name: str = "results.csv") -> int:
    """How many images were tested."""
    with (folder / name).open(newline="") as file:
        row, *_ = [row for row in csv.DictReader(file) if row.get("category", row.get("product")) == "bolt"]
    return int(row["images"]) if "images" in row else int(row["good"]) + int(row["defective"])


@pytest.fixture
def evaluate(uniad, trained, tmp_path):
    def call(*overrides, command="evaluate", ckpt=None):
        ckpt = ckpt or trained / "run/checkpoints/last.ckpt"
        out = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        if any(override.startswith("data=") for override in overrides):
            overrides = (*overrides, "data.image_size=64", "data.num_workers=0")
        status, _, err = uniad(command, f"ckpt_path={ckpt}", f"output_dir={out}", *overrides)
        assert status == 0, err
        return images_tested(out, "results.csv" if command == "evaluate" else "outcomes.csv"), err

    return call


def split_of(trained) -> dict[str, int]:
    import torch

    known = len(torch.load(trained / "run/checkpoints/last.ckpt", weights_only=True)["trained"])
    test = images_tested(trained / "run")
    return {"trained": known, "test": test, "held out": 12 - known - (test - 3)}


def test_own_data_are_split_as_in_the_training(trained, evaluate):
    own = split_of(trained)
    assert own["trained"] < 12 - 2
    assert own["held out"] >= 1
    assert evaluate()[0] == own["test"]
    assert evaluate(f"data.root={trained / 'photos'}")[0] == own["test"]
    assert evaluate("data=folder", f"data.root={trained / 'photos'}")[0] == own["test"]


def test_own_data_given_otherwise_are_tested_but_for_what_was_trained_on(trained, evaluate):
    own = split_of(trained)
    products = "{bolt:{good:bolt/good,defective:bolt/bent}}"
    count, err = evaluate("data=folder", f"data.root={trained / 'photos'}", f"data.source.products={products}")
    assert count == 15 - own["trained"]
    assert f"{own['trained']} good images" in err
    assert "are not tested, since the checkpoint was trained on them" in err


@pytest.mark.parametrize("given", [["data=folder"], []])
def test_other_data_are_tested_whole(evaluate, tmp_path, given):
    root = photos(tmp_path / "new", good=6, bent=2, seed=1)
    count, err = evaluate(*given, f"data.root={root}")
    assert count == 8
    assert "have the names of images that the checkpoint was trained on" in err


def test_one_good_image_is_tested_too(evaluate, tmp_path):
    assert evaluate("data=folder", f"data.root={photos(tmp_path / 'new', good=1, bent=1, seed=1)}")[0] == 2


@pytest.mark.parametrize("share", ["data.source.test_share=0.5", "test_share=0.5"])
def test_the_user_may_say_otherwise(evaluate, tmp_path, share):
    root = photos(tmp_path / "new", good=6, bent=2, seed=1)
    assert evaluate("data=folder", f"data.root={root}", share)[0] == 5
    with pytest.raises(AssertionError, match="test_share"):
        evaluate("data=folder", f"data.root={root}", share.replace("0.5", "2"))


def test_parts_of_a_mix_are_tested_whole(evaluate, tmp_path):
    root = photos(tmp_path / "new", good=6, bent=2, seed=1)
    count, _ = evaluate("data=mix", f"data.source.parts={{lab:{{layout:folder,root:{root}}}}}")
    assert count == 8


@pytest.mark.slow
def test_moved_data_are_split_as_in_the_training_and_new_ones_in_their_place_are_not(trained, evaluate, tmp_path):
    own = split_of(trained)
    moved = shutil.move(trained / "photos", tmp_path / "moved")
    try:
        assert evaluate(f"data.root={moved}")[0] == own["test"]
        evaluate(
            f"data.root={moved}", command="calibrate", ckpt=shutil.copy(trained / "run/checkpoints/last.ckpt", tmp_path)
        )
        for image in sorted((moved / "bolt/good").iterdir()):
            shutil.copy(image, image.with_name(f"new{image.name}"))
        assert evaluate(f"data.root={moved}")[0] == 27 - own["trained"]
    finally:
        for image in (moved / "bolt/good").glob("new*"):
            image.unlink()
        shutil.move(moved, trained / "photos")


def test_calibrate_reports_on_all_of_other_data(trained, evaluate, tmp_path):
    root = photos(tmp_path / "new", good=6, bent=2, seed=1)
    ckpt = shutil.copy(trained / "run/checkpoints/last.ckpt", tmp_path)
    assert evaluate("data=folder", f"data.root={root}", "by=f1", command="calibrate", ckpt=ckpt)[0] == 8


def test_a_tree_without_train_is_tested_and_not_trained_on(evaluate, tmp_path, uniad):
    root = mvtec_tree(tmp_path / "t", categories=("bolt",), size=(64, 64))
    shutil.rmtree(root / "bolt/train")
    assert evaluate("data=mvtec", f"data.root={root}")[0] == 5
    status, _, err = uniad("train", *SMALL, f"data.root={root}", f"output_dir={tmp_path}/x")
    assert status == 2
    assert "train/good: no such folder; bolt needs" in err


LAYOUTS = [
    (mvtec_tree, list_mvtec), (btad_tree, list_btad), (mvtec_loco_tree, list_mvtec_loco),
    (mvtec_3d_tree, list_mvtec_3d), (mvtec_ad2_tree, list_mvtec_ad2), (visa_tree, list_visa),
    (real_iad_tree, list_real_iad),
    (kolektor_tree, list_kolektor_sdd),
]  # fmt: skip


@pytest.mark.parametrize(("tree", "listing"), LAYOUTS)
def test_every_layout_may_lack_its_train_images(tmp_path, tree, listing):
    root = tree(tmp_path / "t")
    whole = listing(root)
    for record in whole.train:
        record.image.unlink()
        if listing is list_kolektor_sdd:
            record.image.with_name(f"{record.image.stem}_label.bmp").unlink(missing_ok=True)
    found = listing(root, train_needed=False)
    assert found == whole._replace(train=())
    with pytest.raises(InputError):
        listing(root)
    for folder in root.glob("*/train"):
        shutil.rmtree(folder)
        assert listing(root, train_needed=False) == whole._replace(train=())


def test_a_list_alone_will_do(tmp_path):
    (tmp_path / "test.json").write_text('{"filename": "0.png", "label": 0, "clsname": "nut"}\n')
    (tmp_path / "0.png").touch()
    found = list_meta(tmp_path, train=None, test="test.json", train_needed=False)
    assert (found.categories, len(found.train), len(found.test)) == (("nut",), 0, 1)
    with pytest.raises(InputError, match="data.source.train: needs a value"):
        list_meta(tmp_path, train=None, test="test.json")
