"""The MVTec-AD listing: what it lists, in which order, and what it refuses."""

import shutil
from pathlib import Path

import pytest

from support.trees import mvtec_tree
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.layouts.skipped import counting
from uniad_lightning.data.records import CategoryCount, Record, counts
from uniad_lightning.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return mvtec_tree(tmp_path / "mvtec", categories=("cable", "bottle"), size=(8, 8))


def refusal(root: Path, **kwargs: object) -> str:
    """The message of the refusal to list `root`, checked to be one line."""
    with pytest.raises(InputError) as caught:
        list_mvtec(root, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_lists_all_records_in_order(tree: Path) -> None:
    splits = list_mvtec(tree)
    assert splits.categories == ("bottle", "cable")
    assert splits.train == tuple(
        Record(tree / category / "train/good" / f"{i:03d}.png", (), category, "good", 0)
        for category in ("bottle", "cable")
        for i in range(4)
    )

    def bad(category: str, defect: str, i: int) -> Record:
        mask = tree / category / "ground_truth" / defect / f"{i:03d}_mask.png"
        return Record(tree / category / "test" / defect / f"{i:03d}.png", (mask,), category, defect, 1)

    def good(category: str, i: int) -> Record:
        return Record(tree / category / "test/good" / f"{i:03d}.png", (), category, "good", 0)

    expected = []
    for category in ("bottle", "cable"):
        expected += [good(category, 0), good(category, 1)]
        expected += [bad(category, "hole", 0), bad(category, "scratch", 0), bad(category, "scratch", 1)]
    assert splits.test == tuple(expected)


def test_counts_by_category_and_defect(tree: Path) -> None:
    shutil.rmtree(tree / "cable/test/hole")
    shutil.rmtree(tree / "cable/ground_truth/hole")
    assert counts(list_mvtec(tree)) == [
        CategoryCount("bottle", 4, 0, 2, 3, {"hole": 1, "scratch": 2}),
        CategoryCount("cable", 4, 0, 2, 2, {"scratch": 2}),
    ]


def test_chosen_categories_are_sorted_and_listed_once(tree: Path) -> None:
    assert list_mvtec(tree, categories=["cable", "bottle", "cable"]) == list_mvtec(tree)
    only = list_mvtec(tree, categories=["cable"])
    assert only.categories == ("cable",)
    assert {record.category for record in only.train + only.test} == {"cable"}


def test_category_that_was_not_chosen_is_not_checked(tree: Path) -> None:
    shutil.rmtree(tree / "cable/train")
    assert list_mvtec(tree, categories=["bottle"]).categories == ("bottle",)


def test_passes_over_what_is_no_category_and_no_picture(tree: Path) -> None:
    before = list_mvtec(tree)
    (tree / "license.txt").touch()
    (tree / "notes").mkdir()
    (tree / ".cache/train/good").mkdir(parents=True)
    for folder in ("bottle/train/good", "bottle/test/hole", "bottle/ground_truth/hole"):
        (tree / folder / "._000.png").touch()
        (tree / folder / "Thumbs.db").touch()
    assert list_mvtec(tree) == before


def test_black_masks_of_good_images_are_passed_over(tree: Path) -> None:
    before = list_mvtec(tree)
    (tree / "bottle/ground_truth/good").mkdir()
    (tree / "bottle/ground_truth/good/000.png").touch()
    assert list_mvtec(tree) == before


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".JPEG", ".bmp", ".tif", ".tiff", ".webp"])
def test_every_picture_suffix_counts(tmp_path: Path, suffix: str) -> None:
    splits = list_mvtec(mvtec_tree(tmp_path, categories=["nut"], size=(8, 8), suffix=suffix))
    assert (len(splits.train), len(splits.test)) == (4, 5)
    assert all(record.image.suffix == suffix for record in splits.train + splits.test)


@pytest.mark.parametrize("name", ["000.png", "000.bmp", "000_mask.tif", "000_mask.PNG"])
def test_mask_may_have_any_suffix_and_the_bare_stem(tree: Path, name: str) -> None:
    folder = tree / "bottle/ground_truth/hole"
    (folder / "000_mask.png").rename(folder / name)
    masks = [record.masks for record in list_mvtec(tree).test if (record.category, record.defect) == ("bottle", "hole")]
    assert masks == [(folder / name,)]


def test_category_without_test_is_for_training(tree: Path) -> None:
    shutil.rmtree(tree / "cable/test")
    shutil.rmtree(tree / "cable/ground_truth")
    assert counts(list_mvtec(tree))[1] == CategoryCount("cable", 4, 0, 0, 0, {})


def test_link_to_nowhere_is_listed_so_that_reading_it_fails(tree: Path) -> None:
    broken = tree / "bottle/train/good/009.png"
    broken.symlink_to("gone.png")
    assert broken in {record.image for record in list_mvtec(tree).train}


def test_refuses_missing_root(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere")
    assert "data.root" in message
    assert f"{tmp_path / 'nowhere'} does not exist" in message


def test_refuses_file_as_root(tmp_path: Path) -> None:
    (tmp_path / "mvtec.tar").touch()
    assert f"data.root: {tmp_path / 'mvtec.tar'} is a file" in refusal(tmp_path / "mvtec.tar")


def test_refuses_root_without_categories(tmp_path: Path) -> None:
    message = refusal(tmp_path)
    assert f"data.root: {tmp_path} holds no category" in message
    assert "train/good/ and test/<defect>/" in message


def test_root_that_is_a_category_is_the_one_category(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list_mvtec(tree / "bottle") == list_mvtec(tree, categories=["bottle"])
    monkeypatch.chdir(tree / "bottle")
    assert list_mvtec(Path()).categories == ("bottle",)


@pytest.mark.parametrize("below", ["train", "test", "train/good", "test/hole"])
def test_root_below_a_category_is_told_the_category(tree: Path, below: str) -> None:
    assert f"it is a part of the category bottle: give data.root={tree / 'bottle'}" in refusal(tree / "bottle" / below)


def test_root_above_the_categories_is_told_their_folder(tree: Path) -> None:
    shutil.move(tree, tree.parent / "high" / "my parts")
    assert "lie one level lower: give 'data.root=" in refusal(tree.parent / "high")
    assert refusal(tree.parent / "high").endswith(f"{tree.parent / 'high' / 'my parts'}'")


def test_without_any_ground_truth_there_are_no_masks_and_a_warning(tree: Path) -> None:
    before = list_mvtec(tree)
    for category in ("bottle", "cable"):
        shutil.rmtree(tree / category / "ground_truth")
    with counting() as skipped:
        splits = list_mvtec(tree)
    assert splits.train == before.train
    assert splits.test == tuple(record._replace(masks=()) for record in before.test)
    folders = [str(tree / category / "ground_truth") for category in ("bottle", "cable")]
    assert str(skipped) == (
        f"no masks, so there are image metrics and no pixel metrics: {', '.join(folders)} are missing"
    )


@pytest.mark.parametrize("leave_folder", [True, False])
def test_refuses_category_without_training_images(tree: Path, leave_folder: bool) -> None:
    folder = tree / "cable/train/good"
    shutil.rmtree(folder)
    if leave_folder:
        folder.mkdir()
    expected = f"{folder}: no image in it" if leave_folder else f"{folder}: no such folder; cable needs its good"
    assert expected in refusal(tree)


def test_misspelt_category_is_told_the_nearest(tree: Path) -> None:
    message = refusal(tree, categories=["cable", "botle"])
    assert "data.categories: no 'botle'" in message
    assert "Did you mean 'bottle'?" in message
    assert "Found: bottle, cable" in message


def test_categories_must_be_a_list_with_something_in_it(tree: Path) -> None:
    assert "'data.categories=[bottle]'" in refusal(tree, categories="bottle")
    assert "the list is empty" in refusal(tree, categories=[])


def test_refuses_defective_image_without_mask(tree: Path) -> None:
    mask = tree / "cable/ground_truth/scratch/001_mask.png"
    mask.unlink()
    message = refusal(tree)
    assert message.startswith(f"{tree / 'cable/test/scratch/001.png'}: the defective image has no mask")
    assert str(mask) in message


def test_refuses_missing_ground_truth(tree: Path) -> None:
    shutil.rmtree(tree / "cable/ground_truth")
    assert str(tree / "cable/ground_truth/hole/000_mask.png") in refusal(tree)


@pytest.mark.parametrize("whole_folder", [True, False])
def test_refuses_mask_without_image(tree: Path, whole_folder: bool) -> None:
    image = tree / "cable/test/hole/000.png"
    if whole_folder:
        shutil.rmtree(image.parent)
    else:
        image.unlink()
    message = refusal(tree)
    assert message.startswith(f"{tree / 'cable/ground_truth/hole/000_mask.png'}: the mask has no image")
    assert str(image) in message


@pytest.mark.parametrize("folder", ["train/good", "test/good", "test/hole", "ground_truth/hole"])
def test_refuses_files_that_differ_in_suffix_only(tree: Path, folder: str) -> None:
    stem = "000_mask" if folder.startswith("ground") else "000"
    twin = tree / "bottle" / folder / f"{stem}.tif"
    twin.touch()
    message = refusal(tree)
    assert message.startswith(f"{twin}: same name as {stem}.png but for the suffix")


def test_refuses_two_masks_of_one_image(tree: Path) -> None:
    folder = tree / "bottle/ground_truth/hole"
    shutil.copy(folder / "000_mask.png", folder / "000.png")
    message = refusal(tree)
    assert message.startswith(f"{tree / 'bottle/test/hole/000.png'}: two masks")
    assert "000.png" in message
    assert "000_mask.png" in message


def test_mask_put_among_the_images_is_not_paired_with_itself(tree: Path) -> None:
    stray = tree / "bottle/test/hole/000_mask.png"
    shutil.copy(tree / "bottle/ground_truth/hole/000_mask.png", stray)
    assert refusal(tree).startswith(f"{stray}: the defective image has no mask")
