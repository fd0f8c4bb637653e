"""`data.on_error=skip`: train images that cannot be read are left out, named and counted; test images never are."""

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from support.settings import QUICK
from support.trees import mvtec_tree
from uniad_lightning.data.checking import check_files, undecodable
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.selection import hold_out
from uniad_lightning.data.skipping import check_skipping, skipped_message, without_unreadable
from uniad_lightning.errors import InputError, TemporaryError

SKIP = "data.on_error=skip"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return mvtec_tree(tmp_path / "tree", train=12, size=(80, 72))


def spoil_inside(path: Path) -> Path:
    """Damage in the middle of a file, of which the header and the end tell nothing."""
    raw = path.read_bytes()
    path.write_bytes(raw[:2000] + bytes(300) + raw[2300:])
    return path


def test_damage_inside_of_a_file_is_found_and_the_image_left_out(root):
    splits = hold_out(list_mvtec(root), 0.3)
    bad = [spoil_inside(splits.train[0].image), splits.validation[-1].image]
    bad[1].write_bytes(b"no image")
    check_files(splits.train)  # which looks at headers and ends alone
    kept, skipped = without_unreadable(splits, 0.1)
    assert [*skipped] == bad
    assert {record.image for record in splits.train} - {record.image for record in kept.train} == {bad[0]}
    assert {record.image for record in splits.validation} - {record.image for record in kept.validation} == {bad[1]}
    assert kept.test == splits.test
    line = skipped_message(skipped, kept)
    assert line.startswith("2 of 24 train images cannot be read (")
    assert all(str(path) in line for path in bad)
    assert skipped_message({}, splits) == ""


def test_a_sound_data_set_stays_as_it_is(root):
    splits = hold_out(list_mvtec(root), 0.3)
    assert without_unreadable(splits, 0.0) == (splits, {})


@pytest.mark.parametrize(("most", "refused"), [(2 / 24, False), (0.08, True)])
def test_more_than_the_given_share_is_refused(root, most, refused):
    splits = list_mvtec(root)
    for record in splits.train[:2]:
        spoil_inside(record.image)
    if not refused:
        assert len(without_unreadable(splits, most)[1]) == 2
        return
    with pytest.raises(InputError, match=r"^2 of 24 train images cannot be read .*data\.max_skipped=0\.08; "):
        without_unreadable(splits, most)


def test_a_category_is_not_left_without_images(root):
    splits = list_mvtec(root)
    for record in splits.train:
        if record.category == "cable":
            record.image.write_bytes(b"")
    with pytest.raises(InputError, match=r"no train image of cable can be read; 12 of 24 .*; and 7 more"):
        without_unreadable(splits, 0.9)


def test_what_the_system_cannot_read_now_is_not_left_out(root):
    resource = pytest.importorskip("resource")
    splits = list_mvtec(root)
    undecodable(splits.train)  # has opened what Pillow needs
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # no file more can be opened
    try:
        with pytest.raises(TemporaryError, match="which is the system's fault"):
            undecodable(splits.train)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("value", ["Skip", None, True, 3])
def test_an_unknown_way_is_refused(value):
    with pytest.raises(InputError, match=r"^data\.on_error=.*: expected refuse .* or skip"):
        check_skipping(value, 0.01)


@pytest.mark.parametrize("value", [-0.1, 1, 1.5, True, "1%", None, float("nan")])
def test_a_share_that_is_none_is_refused(value):
    with pytest.raises(InputError, match=r"^data\.max_skipped=.*: expected a share"):
        check_skipping("skip", value)


def test_a_training_leaves_them_out_and_goes_on_to_the_boundary(uniad, root, tmp_path):
    run = tmp_path / "run"
    bad = spoil_inside(root / "bottle/train/good/003.png")
    words = [*QUICK, f"data.root={root}", "data.held_out=0.3", f"output_dir={run}", "calibrate=true"]
    status, _, err = uniad("train", *words, SKIP)
    assert status == 2
    assert "1 of 24 train images cannot be read" in err
    assert "more than data.max_skipped=0.01" in err
    assert not (run / "checkpoints").exists()
    status, out, err = uniad("train", *words, SKIP, "data.max_skipped=0.05")
    assert status == 0, err
    warned = [line for line in err.splitlines() if "on_error=skip" in line]
    assert len(warned) == 2  # of the training and of the calibration
    assert len(set(warned)) == 1
    assert str(bad) in warned[0]
    assert json.loads((run / "metrics.json").read_text())["skipped_images"] == 1
    with (run / "skipped.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == [str(bad)]
    last = run / "checkpoints/last.ckpt"
    for way, said in (("skip", True), ("refuse", False)):
        given = [f"ckpt_path={last}", f"output_dir={tmp_path}/{way}", "trainer=cpu", f"data.on_error={way}"]
        status, _, err = uniad("evaluate", *given)
        assert status == 0, err
        assert ("cannot be read" in err) == said
        again = json.loads((tmp_path / way / "metrics.json").read_text())
        assert again["mean"] == json.loads((run / "metrics.json").read_text())["mean"]


@pytest.mark.parametrize("part", ["bottle/test/good/000.png", "bottle/ground_truth/scratch/000_mask.png"])
def test_test_images_and_masks_are_never_left_out(uniad, root, tmp_path, part):
    (root / part).write_bytes(b"no image")
    words = [*QUICK, f"data.root={root}", f"output_dir={tmp_path}/run", SKIP, "data.max_skipped=0.9"]
    status, _, err = uniad("train", *words)
    assert status == 2
    assert f"{root / part}: " in err.splitlines()[-1]
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_run_is_resumed_with_the_same_images_alone(uniad, root, tmp_path):
    run, bad = tmp_path / "run", root / "bottle/train/good/003.png"
    whole = bad.read_bytes()
    bad.write_bytes(b"")
    words = [*QUICK, f"data.root={root}", f"output_dir={run}", SKIP, "data.max_skipped=0.05"]
    assert uniad("train", *words)[0] == 0
    (run / "metrics.json").unlink()  # as of a run that was interrupted after its last step
    last = f"ckpt_path={run}/checkpoints/last.ckpt"
    status, _, err = uniad("train", *words, last)
    assert status == 0, err
    bad.write_bytes(whole)
    assert Image.open(bad).size == (72, 80)
    status, _, err = uniad("train", *words, last, "overwrite=true")
    assert status == 2
    assert "1 image is new (bottle/train/good/003.png)" in err
