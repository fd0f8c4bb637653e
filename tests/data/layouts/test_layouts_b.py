"""The listings of Real-IAD and of MVTec LOCO AD, AD 2 and 3D-AD: exact records, and what each refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.layouts import mask, mvtec_3d_tree, mvtec_ad2_tree, mvtec_loco_tree, picture, real_iad_tree
from support.trees import mvtec_tree
from uniad_lightning.data.images.decoding import read_image, read_mask
from uniad_lightning.data.layouts import mvtec_3d, mvtec_ad2, mvtec_loco, real_iad
from uniad_lightning.data.layouts.listing import LayoutError
from uniad_lightning.data.layouts.mvtec_3d import MVTEC_3D, list_mvtec_3d
from uniad_lightning.data.layouts.mvtec_ad2 import MVTEC_AD2, list_mvtec_ad2
from uniad_lightning.data.layouts.mvtec_loco import MVTEC_LOCO, list_mvtec_loco
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.layouts.real_iad import REAL_IAD, list_real_iad
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError

Tree = Callable[[Path], Path]

LAYOUTS = {
    "loco": (MVTEC_LOCO, mvtec_loco_tree, ("juice_bottle", "pushpins")),
    "ad2": (MVTEC_AD2, mvtec_ad2_tree, ("can", "vial")),
    "3d": (MVTEC_3D, mvtec_3d_tree, ("bagel", "tire")),
    "real_iad": (REAL_IAD, real_iad_tree, ("audiojack", "usb")),
}
every_layout = pytest.mark.parametrize(("published", "tree", "categories"), list(LAYOUTS.values()), ids=list(LAYOUTS))


def refusal(listing: Callable[..., Splits], root: Path, kind: type[InputError] = InputError, **kwargs: Any) -> str:
    """The message of the refusal to list `root`, checked to be of exactly this kind and one line."""
    with pytest.raises(InputError) as caught:
        listing(root, **kwargs)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


def good(path: Path, category: str) -> Record:
    return Record(path, (), category, "good", 0)


# What all four have in common.


@every_layout
def test_chosen_categories_are_sorted_and_listed_once(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    root = tree(tmp_path)
    first, last = categories
    assert published.listing(root, categories=[last, first, last]) == published.listing(root)
    only = published.listing(root, categories=[last])
    assert only.categories == (last,)
    assert {record.category for split in only[1:] for record in split} == {last}


@every_layout
def test_listed_pictures_exist_and_masks_fit(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    splits = published.listing(tree(tmp_path))
    assert all(record.label == 0 for record in splits.train + splits.validation)
    for record in splits.train + splits.validation + splits.test:
        size = read_image(record.image).shape[:2]
        masks = [read_mask(path, image_path=record.image, image_size=size) for path in record.masks]
        assert any(each.any() for each in masks) == (record.label == 1)


@every_layout
def test_hidden_files_are_passed_over(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    before = published.listing(tree(tmp_path))
    (tmp_path / ".cache/train/good").mkdir(parents=True)
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        (folder / "._000.png").touch()
        (folder / "._000.json").touch()
        (folder / "Thumbs.db").touch()
    assert published.listing(tmp_path) == before


@every_layout
def test_unknown_category_is_told_the_nearest(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    message = refusal(published.listing, tree(tmp_path), categories=[categories[0] + "x"])
    assert f"no '{categories[0]}x'" in message
    assert f"Did you mean '{categories[0]}'?" in message
    assert f"Found: {', '.join(categories)}" in message


@every_layout
def test_missing_root_and_file_as_root_are_refused(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    assert f"{tmp_path / 'nowhere'} does not exist" in refusal(published.listing, tmp_path / "nowhere")
    (tmp_path / "archive.tar").touch()
    assert f"{tmp_path / 'archive.tar'} is a file" in refusal(published.listing, tmp_path / "archive.tar")


@every_layout
def test_empty_root_is_refused_with_what_was_expected(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    message = refusal(published.listing, tmp_path, LayoutError)
    assert f"data.root: {tmp_path} holds no " in message
    assert published.title in message
    assert ("realiad_jsons/<category>.json" if published is REAL_IAD else "train/good/") in message


@every_layout
def test_root_that_is_a_category_is_refused(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    inside = tree(tmp_path) / ("realiad_1024" if published is REAL_IAD else categories[0])
    shutil.rmtree(inside / "train", ignore_errors=True)
    shutil.rmtree(inside / "test", ignore_errors=True)
    assert "data.root" in refusal(published.listing, inside, LayoutError)


@every_layout
@pytest.mark.parametrize("other", ["mvtec", *LAYOUTS])
def test_other_layouts_are_neither_listed_nor_recognised(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str], other: str
) -> None:
    root = mvtec_tree(tmp_path, size=(8, 8)) if other == "mvtec" else LAYOUTS[other][1](tmp_path)
    same = other != "mvtec" and LAYOUTS[other][0] is published
    assert published.recognise(root) is same
    if not same:
        refusal(published.listing, root, LayoutError)


@every_layout
def test_recognise_never_raises(
    tmp_path: Path, published: Published, tree: Tree, categories: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert not published.recognise(tmp_path)
    assert not published.recognise(tmp_path / "file")
    assert not published.recognise(tmp_path / "nowhere")
    root = tree(tmp_path / "data")

    def refuse(path: Path) -> bool:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert not published.recognise(root)


@every_layout
def test_published_names_a_licence_a_source_and_itself(
    published: Published, tree: Tree, categories: tuple[str, str]
) -> None:
    assert published.licence.startswith("CC BY-NC-SA 4.0")
    assert published.source.startswith("https://")
    assert published.title in published.reference or published is MVTEC_LOCO
    assert set(categories) <= set(published.images) or published is REAL_IAD


def test_published_numbers_add_up_to_the_published_sums() -> None:
    def sums(published: Published) -> tuple[int, ...]:
        return tuple(sum(value or 0 for value in column) for column in zip(*published.images.values(), strict=True))

    assert sums(MVTEC_3D) == (2656, 294, 249, 948)
    assert sums(MVTEC_LOCO) == (1772 - 354, 304 - 59, 575, 993)  # without those of splicing_connectors
    assert REAL_IAD.images["all"] == Images(36_465, 0, 99_721 - 36_465, 151_050 - 99_721)


FOLDERS = {
    "loco": ("pushpins/train/good", "pushpins/test/logical_anomalies/000.png"),
    "ad2": ("vial/train/good", "vial/test_public/bad/000_regular.png"),
    "3d": ("tire/train/good/rgb", "tire/test/hole/rgb/000.png"),
}
folder_layouts = pytest.mark.parametrize(
    ("published", "tree", "train", "image"), [(*LAYOUTS[key][:2], *FOLDERS[key]) for key in FOLDERS], ids=list(FOLDERS)
)


@folder_layouts
def test_missing_and_empty_training_folders_are_refused(
    tmp_path: Path, published: Published, tree: Tree, train: str, image: str
) -> None:
    folder = tree(tmp_path) / train
    shutil.rmtree(folder)
    assert refusal(published.listing, tmp_path, LayoutError).startswith(f"{folder}: no such folder")
    folder.mkdir()
    assert refusal(published.listing, tmp_path).startswith(f"{folder}: no image in it")


@folder_layouts
def test_category_without_validation_has_no_such_records(
    tmp_path: Path, published: Published, tree: Tree, train: str, image: str
) -> None:
    before = published.listing(tree(tmp_path))
    for folder in tmp_path.glob("*/validation"):
        shutil.rmtree(folder)
    assert len(before.validation) == 2
    assert published.listing(tmp_path) == before._replace(validation=())


@folder_layouts
def test_mask_without_image_is_refused(
    tmp_path: Path, published: Published, tree: Tree, train: str, image: str
) -> None:
    path = tree(tmp_path) / image
    path.unlink()
    message = refusal(published.listing, tmp_path)
    assert "has no image" in message
    assert f"expected {path}" in message


@folder_layouts
def test_images_that_differ_in_suffix_only_are_refused(
    tmp_path: Path, published: Published, tree: Tree, train: str, image: str
) -> None:
    twin = picture((tree(tmp_path) / image).with_suffix(".tif"))
    assert refusal(published.listing, tmp_path).startswith(f"{twin}: same name as")


# MVTec LOCO AD.


def test_loco_lists_every_mask_of_an_image(tmp_path: Path) -> None:
    root = mvtec_loco_tree(tmp_path)
    splits = list_mvtec_loco(root)

    def bad(category: str, defect: str, stem: str, masks: int) -> Record:
        truth = root / category / "ground_truth" / defect / stem
        files = tuple(truth / f"{number:03d}.png" for number in range(masks))
        return Record(root / category / "test" / defect / f"{stem}.png", files, category, defect, 1)

    categories = ("juice_bottle", "pushpins")
    assert splits.categories == categories
    assert splits.train == tuple(good(root / c / f"train/good/{i:03d}.png", c) for c in categories for i in range(2))
    assert splits.validation == tuple(good(root / c / "validation/good/000.png", c) for c in categories)
    assert splits.test == tuple(
        record
        for c in categories
        for record in (
            good(root / c / "test/good/000.png", c),
            bad(c, "logical_anomalies", "000", 3),
            bad(c, "structural_anomalies", "000", 1),
            bad(c, "structural_anomalies", "001", 1),
        )
    )


@pytest.mark.parametrize(("keep", "state"), [(True, "is empty"), (False, "does not exist")])
def test_loco_refuses_image_without_masks(tmp_path: Path, keep: bool, state: str) -> None:
    folder = mvtec_loco_tree(tmp_path) / "pushpins/ground_truth/structural_anomalies/001"
    shutil.rmtree(folder)
    if keep:
        folder.mkdir()
    message = refusal(list_mvtec_loco, tmp_path)
    assert message.startswith(f"{tmp_path / 'pushpins/test/structural_anomalies/001.png'}: the defective image has no")
    assert str(folder / "000.png") in message
    assert message.endswith(state)


def test_loco_refuses_category_without_either_kind_of_anomaly(tmp_path: Path) -> None:
    root = mvtec_loco_tree(tmp_path)
    for kind in ("logical_anomalies", "structural_anomalies"):
        shutil.rmtree(root / "pushpins/test" / kind)
    message = refusal(list_mvtec_loco, root, LayoutError)
    assert message.startswith(f"{root / 'pushpins/test'}: neither logical_anomalies nor structural_anomalies in it")


def test_loco_with_masks_as_in_mvtec_ad_is_not_recognised(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path, defects={"logical_anomalies": 1}, size=(8, 8))
    assert not mvtec_loco.recognise(root)
    assert "has no mask" in refusal(list_mvtec_loco, root)


# MVTec AD 2.


def test_ad2_lists_public_splits(tmp_path: Path) -> None:
    root = mvtec_ad2_tree(tmp_path)
    splits = list_mvtec_ad2(root)
    categories = ("can", "vial")
    assert splits.categories == categories
    assert splits.train == tuple(
        good(root / c / f"train/good/{i:03d}_regular.png", c) for c in categories for i in range(2)
    )
    assert splits.validation == tuple(good(root / c / "validation/good/000_regular.png", c) for c in categories)
    expected = []
    for c in categories:
        public = root / c / "test_public"
        for stem in ("000_overexposed", "000_regular"):
            masks = (public / f"ground_truth/bad/{stem}_mask.png",)
            expected.append(Record(public / f"bad/{stem}.png", masks, c, "bad", 1))
        expected.append(good(public / "good/000_regular.png", c))
    assert splits.test == tuple(expected)


def test_ad2_refuses_image_without_mask(tmp_path: Path) -> None:
    lost = mvtec_ad2_tree(tmp_path) / "vial/test_public/ground_truth/bad/000_regular_mask.png"
    lost.unlink()
    message = refusal(list_mvtec_ad2, tmp_path)
    assert message.startswith(f"{tmp_path / 'vial/test_public/bad/000_regular.png'}: the defective image has no mask")
    assert str(lost) in message


def test_ad2_refuses_category_without_public_test(tmp_path: Path) -> None:
    folder = mvtec_ad2_tree(tmp_path) / "vial/test_public"
    shutil.rmtree(folder)
    assert refusal(list_mvtec_ad2, tmp_path, LayoutError).startswith(f"{folder}: no such folder")
    assert mvtec_ad2.recognise(tmp_path)  # by the other category


# MVTec 3D-AD.


def test_3d_lists_colour_pictures(tmp_path: Path) -> None:
    root = mvtec_3d_tree(tmp_path)
    splits = list_mvtec_3d(root)
    categories = ("bagel", "tire")
    assert splits.categories == categories
    assert splits.train == tuple(
        good(root / c / f"train/good/rgb/{i:03d}.png", c) for c in categories for i in range(2)
    )
    assert splits.validation == tuple(good(root / c / "validation/good/rgb/000.png", c) for c in categories)

    def bad(category: str, defect: str, stem: str) -> Record:
        folder = root / category / "test" / defect
        return Record(folder / f"rgb/{stem}.png", (folder / f"gt/{stem}.png",), category, defect, 1)

    expected = []
    for c in categories:
        expected += [bad(c, "crack", "000"), good(root / c / "test/good/rgb/000.png", c)]
        expected += [bad(c, "hole", "000"), bad(c, "hole", "001")]
    assert splits.test == tuple(expected)


def test_3d_refuses_image_without_mask(tmp_path: Path) -> None:
    lost = mvtec_3d_tree(tmp_path) / "tire/test/hole/gt/001.png"
    lost.unlink()
    message = refusal(list_mvtec_3d, tmp_path)
    assert message.startswith(f"{tmp_path / 'tire/test/hole/rgb/001.png'}: the defective image has no mask")
    assert str(lost) in message


def test_3d_refuses_defect_without_colour_pictures(tmp_path: Path) -> None:
    folder = mvtec_3d_tree(tmp_path) / "tire/test/hole/rgb"
    shutil.rmtree(folder)
    assert refusal(list_mvtec_3d, tmp_path, LayoutError).startswith(f"{folder}: no such folder")


def test_3d_category_without_test_is_for_training(tmp_path: Path) -> None:
    root = mvtec_3d_tree(tmp_path)
    shutil.rmtree(root / "tire/test")
    splits = list_mvtec_3d(root)
    assert [record.category for record in splits.train] == ["bagel", "bagel", "tire", "tire"]
    assert {record.category for record in splits.test} == {"bagel"}
    assert mvtec_3d.recognise(root)


# Real-IAD.


@pytest.fixture
def iad(tmp_path: Path) -> Path:
    return real_iad_tree(tmp_path)


def change(root: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Applies `edit` to the content of usb.json and returns the file."""
    file = root / "realiad_jsons/usb.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def test_real_iad_lists_every_side_in_the_order_of_the_files(iad: Path) -> None:
    splits = list_real_iad(iad)

    def side(category: str, stem: str) -> Path:
        sample, _, rest = stem.partition("#")
        return iad / "realiad_1024" / category / sample / f"{category}_{rest}_20231021.jpg"

    categories = ("audiojack", "usb")
    assert splits.categories == categories
    assert splits.validation == ()
    assert splits.train == tuple(
        good(side(c, f"OK/S0001#0001_OK_OK_{view}"), c) for c in categories for view in ("C1", "C2")
    )
    expected = []
    for c in categories:
        bent = side(c, "NG/BX/S0003#0003_NG_BX_C1")
        expected += [good(side(c, f"OK/S0002#0002_OK_OK_{view}"), c) for view in ("C1", "C2")]
        expected += [Record(bent, (bent.with_suffix(".png"),), c, "BX", 1)]
        expected += [good(side(c, "NG/BX/S0003#0003_NG_OK_C2"), c)]
    assert splits.test == tuple(expected)


def test_real_iad_jsons_may_lie_one_folder_deeper(iad: Path) -> None:
    before = list_real_iad(iad)
    (iad / "realiad_jsons").rename(iad / "jsons")
    (iad / "realiad_jsons").mkdir()
    (iad / "jsons").rename(iad / "realiad_jsons/realiad_jsons")
    assert real_iad.recognise(iad)
    assert list_real_iad(iad) == before


@pytest.mark.parametrize("name", ["realiad_512", "realiad_256", "realiad_raw"])
def test_real_iad_takes_1024_before_other_sizes(iad: Path, name: str) -> None:
    before = list_real_iad(iad)
    (iad / name).mkdir()
    assert list_real_iad(iad) == before
    (iad / name).rmdir()
    (iad / "realiad_1024").rename(iad / name)
    assert real_iad.recognise(iad)
    assert all(str(record.image).startswith(str(iad / name)) for record in list_real_iad(iad).train)


def test_real_iad_refuses_root_without_pictures(iad: Path) -> None:
    (iad / "realiad_1024").rename(iad / "pictures")
    assert not real_iad.recognise(iad)
    message = refusal(list_real_iad, iad, LayoutError)
    assert "holds no folder of images of Real-IAD" in message
    assert "realiad_1024/" in message


def test_real_iad_file_of_another_category_is_not_read(iad: Path) -> None:
    (iad / "realiad_jsons/usb.json").write_text("{")
    assert list_real_iad(iad, categories=["audiojack"]).categories == ("audiojack",)


@pytest.mark.parametrize("data", [b"", b'{"meta": ', b"\xff\xfe", b"[" * 200_000])
def test_real_iad_refuses_broken_json(iad: Path, data: bytes) -> None:
    file = iad / "realiad_jsons/usb.json"
    file.write_bytes(data)
    message = refusal(list_real_iad, iad)
    assert message.startswith(f"{file}: cannot be read as JSON (")
    assert message.endswith("unpack realiad_jsons again")


@pytest.mark.parametrize("key", ["meta", "train", "test"])
def test_real_iad_refuses_file_without_key(iad: Path, key: str) -> None:
    file = change(iad, lambda content: content.pop(key))
    message = refusal(list_real_iad, iad)
    assert message.startswith(f"{file}: found the keys ")
    assert f"expected an object with '{key}'" in message


@pytest.mark.parametrize("key", ["prefix", "normal_class"])
def test_real_iad_refuses_meta_without_key(iad: Path, key: str) -> None:
    file = change(iad, lambda content: content["meta"].pop(key))
    message = refusal(list_real_iad, iad)
    assert message.startswith(f"{file}: meta: found ")
    assert f"expected an object with '{key}'" in message


@pytest.mark.parametrize("key", ["anomaly_class", "image_path", "mask_path"])
def test_real_iad_refuses_entry_without_key(iad: Path, key: str) -> None:
    file = change(iad, lambda content: content["test"][2].pop(key))
    message = refusal(list_real_iad, iad)
    assert message.startswith(f"{file}: test[2]: found the keys ")
    assert f"expected an object with '{key}'" in message


def test_real_iad_refuses_values_of_another_kind(iad: Path) -> None:
    file = change(iad, lambda content: content["train"][1].update(image_path=7))
    assert refusal(list_real_iad, iad).startswith(f"{file}: train[1].image_path: found int, expected str")
    change(iad, lambda content: content.update(train=["000.jpg"]))
    assert refusal(list_real_iad, iad).startswith(f"{file}: train[0]: found str, expected an object")
    change(iad, lambda content: content.update(train={}))
    assert refusal(list_real_iad, iad).startswith(f"{file}.train: found dict, expected list")
    file.write_text("[]")
    assert refusal(list_real_iad, iad).startswith(f"{file}: found list, expected an object with 'meta'")


@pytest.mark.parametrize("key", ["image_path", "mask_path"])
@pytest.mark.parametrize("path", ["../../../secret.png", "OK/../../secret.png", "/etc/hosts"])
def test_real_iad_refuses_path_that_leaves_the_pictures(iad: Path, key: str, path: str) -> None:
    picture(iad.parent / "secret.png")
    file = change(iad, lambda content: content["test"][2].update({key: path}))
    message = refusal(list_real_iad, iad)
    assert message.startswith(f"{file}: test[2].{key}: {path!r} leads out of the images")


@pytest.mark.parametrize("prefix", ["..", "/"])
def test_real_iad_refuses_prefix_that_leaves_the_pictures(iad: Path, prefix: str) -> None:
    file = change(iad, lambda content: content["meta"].update(prefix=prefix))
    assert refusal(list_real_iad, iad).startswith(f"{file}: meta.prefix: {prefix!r} leads out of the images")


@pytest.mark.parametrize("key", ["image_path", "mask_path"])
def test_real_iad_refuses_absent_file(iad: Path, key: str) -> None:
    file = iad / "realiad_jsons/usb.json"
    lost = iad / "realiad_1024/usb" / json.loads(file.read_text())["test"][2][key]
    lost.unlink()
    assert refusal(list_real_iad, iad).startswith(f"{file}: test[2].{key}: no file {lost}; unpack")


def test_real_iad_refuses_defect_without_mask(iad: Path) -> None:
    file = change(iad, lambda content: content["test"][2].update(mask_path=None))
    assert refusal(list_real_iad, iad).startswith(f"{file}: test[2]: BX is a defect, but mask_path is null")


def test_real_iad_passes_over_mask_of_a_good_image(iad: Path) -> None:
    before = list_real_iad(iad)
    path = "OK/S0002/black.png"
    mask(iad / "realiad_1024/usb" / path, corner=0)
    change(iad, lambda content: content["test"][0].update(mask_path=path))
    assert list_real_iad(iad) == before


def test_real_iad_refuses_defect_to_train_on(iad: Path) -> None:
    file = change(iad, lambda content: content["train"].append(content["test"].pop(2)))
    message = refusal(list_real_iad, iad)
    assert message.startswith(f"{file}: train[2]: BX to train on, expected OK")


def test_real_iad_refuses_image_that_is_listed_twice(iad: Path) -> None:
    file = change(iad, lambda content: content["test"].append(content["train"][0]))
    message = refusal(list_real_iad, iad)
    assert message.startswith(f"{file}: test[4]: ")
    assert "is listed twice" in message


def test_real_iad_refuses_category_without_training_images(iad: Path) -> None:
    file = change(iad, lambda content: content.update(train=[]))
    assert refusal(list_real_iad, iad).startswith(f"{file}: train is empty")
