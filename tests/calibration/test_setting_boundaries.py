"""Which good images set the boundaries: those held out, train images each scored without it, and test images."""

import csv
import json
import shutil

import pytest

from support.settings import FEATURES
from uniad_lightning import Detector

BANK = [*FEATURES, "model=memory_bank", "model.coreset=0.3", "data.cache=disk"]


@pytest.fixture(scope="module")
def bank(tree, tmp_path_factory):
    """A bank of all good train images, none held out."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("bank")
    assert run_command("train", [*BANK, f"data.root={tree}", f"output_dir={folder}/run"]) == 0
    return folder / "run/checkpoints/last.ckpt"


@pytest.fixture
def copied(bank, tmp_path):
    return shutil.copy(bank, tmp_path / "bank.ckpt")


def test_every_train_image_sets_the_boundary_of_a_bank_without_having_been_in_it(tree, copied, uniad, tmp_path):
    status, out, err = uniad("calibrate", f"ckpt_path={copied}", f"output_dir={tmp_path}/report", "rate=0.1", "folds=3")
    assert status == 0, err
    assert "each image is decided by its category's own boundary" in out
    detector = Detector.load(copied)
    assert detector.calibration.overall.images == 18
    assert {name: own.images for name, own in detector.calibration.categories.items()} == {"bottle": 9, "cable": 9}
    assert json.loads((tmp_path / "report/calibration.json").read_text())["cross_fitted"] is True
    with (tmp_path / "report/test_scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    for row in rows:
        result = detector.predict(row["path"])
        assert (row["decision"], row["category_found"]) == (result.decision, result.category)
        assert float(row["score"]) == pytest.approx(result.score, abs=1e-5)
    # In the whole bank a train image is near its own patches.
    inside = [detector.predict(path).score for path in tree.glob("bottle/train/good/*.png")]
    assert max(inside) < detector.calibration.categories["bottle"].score


def test_without_folds_a_bank_of_all_images_cannot_be_calibrated(copied, uniad, tmp_path):
    status, _, err = uniad("calibrate", f"ckpt_path={copied}", f"output_dir={tmp_path}/report", "folds=null")
    assert status == 2
    assert "data.held_out=0.1" in err


@pytest.mark.parametrize("word", ["folds=1", "folds=many", "boundaries=each"])
def test_settings_that_are_none_are_one_line(copied, uniad, tmp_path, word):
    status, _, err = uniad("calibrate", f"ckpt_path={copied}", f"output_dir={tmp_path}/report", word)
    assert status == 2
    assert err.strip().splitlines()[-1].startswith(f"uniad: {word}: expected ")


def test_one_boundary_for_all_stays_an_option(tree, copied, uniad, tmp_path):
    status, out, err = uniad(
        "calibrate", f"ckpt_path={copied}", f"output_dir={tmp_path}/report", "rate=0.2", "boundaries=one"
    )
    assert status == 0, err
    assert "one boundary decides for all categories (boundaries=one)" in out
    detector = Detector.load(copied)
    path = next(tree.rglob("test/good/*.png"))
    assert detector.predict(path).boundary == detector.calibration.overall


def test_good_test_images_of_a_category_without_defects_set_its_boundary(tree, copied, uniad, tmp_path):
    changed = shutil.copytree(tree, tmp_path / "changed")
    shutil.rmtree(changed / "cable/ground_truth")
    for kind in (changed / "cable/test").iterdir():
        if kind.name != "good":
            shutil.rmtree(kind)
    goods = len(list((changed / "cable/test/good").iterdir()))
    words = [f"ckpt_path={copied}", f"data.root={changed}", f"output_dir={tmp_path}/report", "rate=0.3", "folds=3"]
    status, _, err = uniad("calibrate", *words)
    assert status == 0, err
    images = {name: own.images for name, own in Detector.load(copied).calibration.categories.items()}
    assert images == {"bottle": 9, "cable": 9 + goods}
    with (tmp_path / "report/outcomes.csv").open(newline="") as file:
        assert {row["category"] for row in csv.DictReader(file)} == {"bottle", "all"}


def test_a_bank_of_all_images_can_be_calibrated_at_the_end_of_its_training(tree, uniad, tmp_path):
    status, _, err = uniad("train", *BANK, f"data.root={tree}", "calibrate=true", f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert "held out" not in err
    assert Detector.load(tmp_path / "run").calibration.overall.images == 18


def test_the_only_image_of_a_category_sets_no_boundary(tree, uniad, tmp_path):
    changed = shutil.copytree(tree, tmp_path / "changed")
    for path in sorted((changed / "cable/train/good").iterdir())[1:]:
        path.unlink()
    words = [*BANK, f"data.root={changed}", "calibrate=true", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *words)
    assert status == 0, err
    calibration = Detector.load(tmp_path / "run").calibration
    assert (calibration.overall.images, list(calibration.categories)) == (9, ["bottle"])


def test_further_defective_images_are_tested_under_the_category_found_in_them(tree, copied, uniad, tmp_path):
    (tmp_path / "scrap").mkdir()
    for name in ("bottle", "cable"):  # under another name: copies of the same name would be the test images again
        shutil.copy(tree / name / "test/hole/000.png", tmp_path / "scrap" / f"{name}.png")
    words = [f"ckpt_path={copied}", f"output_dir={tmp_path}/report", "rate=0.1", "folds=3"]
    status, _, err = uniad("calibrate", *words, f"defective={tmp_path}/scrap")
    assert status == 0, err
    with (tmp_path / "report/outcomes.csv").open(newline="") as file:
        defective = {row["category"]: int(row["defective"]) for row in csv.DictReader(file) if row["kind"] == "own"}
    assert defective == {"bottle": 4, "cable": 4, "all": 8}  # three of the tree each, and one more
    status, _, err = uniad("calibrate", *words, "overwrite=true", f"defective={tree}/bottle/test/hole")
    assert status == 0, err
    with (tmp_path / "report/test_scores.csv").open(newline="") as file:
        assert len({row["path"] for row in csv.DictReader(file)}) == 10  # a test image is tested once


def test_an_image_is_not_given_as_good_and_as_defective(tree, copied, uniad, tmp_path):
    image = tree / "bottle/test/hole/000.png"
    status, _, err = uniad(
        "calibrate", f"ckpt_path={copied}", f"output_dir={tmp_path}/report", f"good={image}", f"defective={image}"
    )
    assert status == 2
    assert "is given as good, too" in err.strip().splitlines()[-1]
