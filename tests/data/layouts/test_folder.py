"""The user's own images: which records folders and patterns give, and what is refused."""

import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from support.layouts import (
    btad_tree,
    kolektor_tree,
    mvtec_3d_tree,
    mvtec_ad2_tree,
    mvtec_loco_tree,
    real_iad_tree,
    visa_tree,
)
from support.trees import mvtec_tree
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.data.layouts.catalogue import with_hint
from uniad_lightning.data.layouts.folder import list_folder
from uniad_lightning.data.layouts.listing import LayoutError
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.layouts.skipped import counting
from uniad_lightning.data.records import Record, Splits, counts
from uniad_lightning.errors import InputError

SHARE = 0.25


def touch(root: Path, *names: str) -> Path:
    """Empty files: a listing opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def numbered(folder: str, count: int, suffix: str = ".png") -> list[str]:
    return [f"{folder}/{i:03d}{suffix}" for i in range(count)]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Two products in folders that speak for themselves, the first with masks."""
    bottle = [*numbered("bottle/good", 4), *numbered("bottle/dent", 2), *numbered("bottle/crack", 1)]
    masks = ["bottle/masks/dent/000_mask.png", "bottle/masks/dent/001.tif", "bottle/masks/crack/000_mask.png"]
    return touch(tmp_path / "shop", *bottle, *masks, *numbered("nut/good", 2, ".JPG"), *numbered("nut/rust", 1))


@pytest.fixture
def heap(tmp_path: Path) -> Path:
    """Images in folders of the user's own names."""
    return touch(
        tmp_path / "heap",
        *numbered("line 1/ok", 3), *numbered("line 1/ok/night", 1), *numbered("line 1/scrap/dent", 2),
        *numbered("line 1/scrap", 1), *numbered("line 1/checked", 2), *numbered("line 2/fine", 2),
    )  # fmt: skip


def listed(root: Path, products: object = None, test_share: float = 0, **kwargs: object) -> Splits:
    return list_folder(root, products=products, test_share=test_share, **kwargs)


def refusal(root: Path, products: object = None, test_share: float = 0, **kwargs: object) -> str:
    """The message of the refusal, checked to be one line."""
    with pytest.raises(InputError) as caught:
        listed(root, products, test_share, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(root: Path, records: tuple[Record, ...]) -> list[str]:
    return [str(record.image.relative_to(root)) for record in records]


def kinds(root: Path, splits: Splits) -> dict[str, str]:
    return {str(r.image.relative_to(root)): r.defect for r in splits.test if r.label == 1}


def test_folders_speak_for_themselves(shop: Path) -> None:
    def record(name: str, defect: str, *masks: str) -> Record:
        product = name.split("/")[0]
        return Record(shop / name, tuple(shop / mask for mask in masks), product, defect, int(defect != "good"))

    assert listed(shop, test_share=SHARE) == Splits(
        categories=("bottle", "nut"),
        train=(
            *(record(f"bottle/good/{i}.png", "good") for i in ("000", "001", "003")),
            record("nut/good/000.JPG", "good"),
        ),
        test=(
            record("bottle/crack/000.png", "crack", "bottle/masks/crack/000_mask.png"),
            record("bottle/dent/000.png", "dent", "bottle/masks/dent/000_mask.png"),
            record("bottle/dent/001.png", "dent", "bottle/masks/dent/001.tif"),
            record("bottle/good/002.png", "good"),
            record("nut/good/001.JPG", "good"),
            record("nut/rust/000.png", "rust"),
        ),
    )


def test_root_with_good_is_the_one_product(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = listed(shop / "bottle")
    assert splits.categories == ("bottle",)
    assert counts(splits)[0].by_defect == {"crack": 1, "dent": 2}
    assert all(record.masks for record in splits.test)
    monkeypatch.chdir(shop / "bottle")
    assert listed(Path()).categories == ("bottle",)
    assert [record.masks for record in listed(Path()).test][0] == (Path("masks/crack/000_mask.png"),)


def test_ground_truth_will_do_for_masks(shop: Path) -> None:
    before = [record.masks[0].name for record in listed(shop / "bottle").test]
    (shop / "bottle/masks").rename(shop / "bottle/ground_truth")
    assert [record.masks[0].name for record in listed(shop / "bottle").test] == before


@pytest.mark.parametrize("mask", ["rust/7_mask.png", "b/7.png", "rust/a/b/7.png", "7.png"])
def test_mask_of_a_deeper_image_may_lie_at_its_kind(tmp_path: Path, mask: str) -> None:
    touch(tmp_path, "nut/good/0.png", "nut/rust/a/b/7.png", f"nut/masks/{mask}")
    expected = Record(tmp_path / "nut/rust/a/b/7.png", (tmp_path / "nut/masks" / mask,), "nut", "rust", 1)
    assert listed(tmp_path).test == (expected,)


def test_a_folder_of_pictures_that_is_no_product_is_refused_unless_products_are_chosen(shop):
    touch(shop, "screw/Good/000.png")
    with pytest.raises(InputError, match=r"screw: has images, but no folder good.*data\.categories"):
        listed(shop)
    assert "screw" not in listed(shop, categories=["nut"]).categories


def test_folders_are_searched_to_the_bottom_and_the_hidden_passed_over(shop: Path) -> None:
    touch(
        shop, "nut/good/night/9.png", "nut/rust/a/b/7.png", "nut/good/._000.png", "nut/.old/1.png", "nut/rust/.x/1.png"
    )
    touch(shop, "nut/readme.png", "nut/good/notes.txt", "papers/notes.txt")
    splits = listed(shop)
    nuts = [record for record in splits.train if record.category == "nut"]
    assert names(shop, nuts) == ["nut/good/000.JPG", "nut/good/001.JPG", "nut/good/night/9.png"]
    assert [name for name in kinds(shop, splits).items() if name[0].startswith("nut")] == [
        ("nut/rust/000.png", "rust"),
        ("nut/rust/a/b/7.png", "rust"),
    ]


LEFT_OUT = ["@eaDir", "#recycle", ".ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN"]


@pytest.mark.parametrize("way", ["folders", "patterns", "mvtec"])
def test_what_systems_leave_behind_is_left_out_and_a_folder_is_no_picture(shop: Path, way: str) -> None:
    root = mvtec_tree(shop.parent / "mvtec", defects={"dent": 1}, size=(8, 8)) if way == "mvtec" else shop
    products = {"nut": {"good": "nut/good/**", "defective": "nut/rust"}} if way == "patterns" else None

    def found() -> Splits:
        return list_mvtec(root) if way == "mvtec" else listed(root, products)

    expected = found()
    folders = {path.parent for path in root.rglob("*.*")}
    for folder in folders:
        touch(folder, *(f"{name}/000.png" for name in LEFT_OUT), "Thumbs.db", "desktop.ini", ".DS_Store", "._000.png")
        touch(folder / "folder.png", "notes.md")
    with counting() as passed_over:
        assert found() == expected
    assert {path.name for path in passed_over.others} <= {"notes.md"}
    assert not passed_over.beside


@pytest.mark.parametrize("way", ["folders", "patterns", "mvtec"])
def test_what_is_passed_over_is_counted_by_suffix(shop: Path, way: str) -> None:
    root = mvtec_tree(shop.parent / "mvtec", defects={"dent": 1}, size=(8, 8)) if way == "mvtec" else shop
    products = {"nut": {"good": ["nut/good/*", "nut/good"], "defective": "nut/rust"}} if way == "patterns" else None
    good, kind = ("bottle/train/good", "bottle/test/dent") if way == "mvtec" else ("nut/good", "nut/rust")
    touch(root, f"{good}/a.xyz", f"{good}/b.XYZ", f"{good}/c", f"{kind}/d.json")
    with counting() as passed_over:
        list_mvtec(root) if way == "mvtec" else listed(root, products)
    said = f"skipped, since the suffix is not an image's: .json 1, .xyz 2, without suffix 1 (such as {root}"
    assert str(passed_over).startswith(said)
    assert "\n" not in str(passed_over)


@pytest.mark.parametrize(("way", "place"), [("folders", "nut"), ("mvtec", "bottle/train"), ("mvtec", "bottle/test")])
def test_pictures_beside_the_folders_are_counted(shop: Path, way: str, place: str) -> None:
    root = mvtec_tree(shop.parent / "mvtec", defects={"dent": 1}, size=(8, 8)) if way == "mvtec" else shop
    touch(root / place, "1.png", "2.jpg", "readme.txt")
    with counting() as passed_over:
        list_mvtec(root) if way == "mvtec" else listed(root)
    assert str(passed_over).startswith("skipped, since they lie beside the folders of good and defective images: 2 ")
    assert str(root / place / "1.png") in str(passed_over)


def test_a_link_in_a_circle_hides_nothing_else(shop: Path) -> None:
    (shop / "nut/good/loop.png").symlink_to("loop.png")
    (shop / "nut/good/loop").symlink_to("loop")
    nuts = [record for record in listed(shop).train if record.category == "nut"]
    assert names(shop, nuts) == ["nut/good/000.JPG", "nut/good/001.JPG", "nut/good/loop.png"]


def test_linked_folders_are_followed_and_a_link_back_up_ends(shop: Path, tmp_path: Path) -> None:
    elsewhere = touch(tmp_path / "disk", "1.png", "more/2.png")
    (shop / "nut/good/disk").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(shop / "nut/good")
    (shop / "nut/good/gone.png").symlink_to("nowhere.png")  # listed, so that reading it fails
    new = ["nut/good/disk/1.png", "nut/good/disk/more/2.png", "nut/good/gone.png"]
    nuts = [record for record in listed(shop).train if record.category == "nut"]
    assert names(shop, nuts) == ["nut/good/000.JPG", "nut/good/001.JPG", *new]
    products = {"nut": {"good": "nut/good"}}
    assert listed(shop, products).train == tuple(nuts)


@pytest.mark.parametrize(
    ("images", "share", "tested"),
    [
        (10, 0, []),
        (10, 0.2, [2, 7]),
        (10, 0.01, [5]),
        (10, 0.5, [1, 3, 5, 7, 9]),
        (10, 0.99, [0, 1, 2, 3, 5, 6, 7, 8, 9]),
        (3, 0.5, [0, 2]),
        (2, 0.2, [1]),
        (1, 0.9, []),
    ],
)
def test_share_is_evenly_spaced_and_leaves_some(tmp_path: Path, images: int, share: float, tested: list[int]) -> None:
    touch(tmp_path, *numbered("good", images))
    splits = listed(tmp_path, test_share=share)
    assert names(tmp_path, splits.test) == [f"good/{i:03d}.png" for i in tested]
    assert names(tmp_path, splits.train) == [f"good/{i:03d}.png" for i in range(images) if i not in tested]


def test_chosen_products_alone_are_read(shop: Path) -> None:
    (shop / "bottle/masks/dent/001.tif").unlink()
    assert "no mask" in refusal(shop)
    assert listed(shop, categories=["nut"]).categories == ("nut",)
    assert "Did you mean 'nut'?" in refusal(shop, categories=["nuts"])
    products = {"nut": {"good": "nut/good"}, "bottle": {"good": "nowhere"}}
    assert listed(shop, products, categories=["nut"]).categories == ("nut",)


def test_patterns(heap: Path) -> None:
    products = {
        "nut": {"good": "line 2/f*"},
        "Bolt M8": {"good": ["line 1/ok"], "defective": "line 1/scrap", "test_good": ["line 1/checked/*1.png"]},
    }
    splits = listed(heap, products, test_share=0.9)

    def record(name: str, product: str, defect: str) -> Record:
        return Record(heap / name, (), product, defect, int(defect != "good"))

    bolts = ["line 1/ok/000.png", "line 1/ok/001.png", "line 1/ok/002.png", "line 1/ok/night/000.png"]
    assert splits == Splits(
        categories=("Bolt M8", "nut"),
        train=(*(record(name, "Bolt M8", "good") for name in bolts), record("line 2/fine/000.png", "nut", "good")),
        test=(
            record("line 1/scrap/dent/000.png", "Bolt M8", "dent"),
            record("line 1/scrap/dent/001.png", "Bolt M8", "dent"),
            record("line 1/checked/001.png", "Bolt M8", "good"),
            record("line 1/scrap/000.png", "Bolt M8", "scrap"),
            record("line 2/fine/001.png", "nut", "good"),
        ),
    )


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("line 1/ok", ["000.png", "001.png", "002.png", "night/000.png"]),
        ("line 1/ok/", ["000.png", "001.png", "002.png", "night/000.png"]),
        ("line 1/ok/*.png", ["000.png", "001.png", "002.png"]),
        ("line 1/ok/00[12].png", ["001.png", "002.png"]),
        ("line 1/ok/001.png", ["001.png"]),
        ("line 1/ok/**/000.png", ["000.png", "night/000.png"]),
        ("*/ok/n*", ["night/000.png"]),
        (
            ["line 1/ok/*.png", "line 1/ok/000.png", "line 1/ok/night"],
            ["000.png", "001.png", "002.png", "night/000.png"],
        ),
    ],
)
def test_pattern_is_a_folder_a_file_or_a_glob(heap: Path, pattern: object, found: list[str]) -> None:
    assert names(heap / "line 1/ok", listed(heap, {"bolt": {"good": pattern}}).train) == found


def test_pattern_may_be_absolute_and_the_root_relative(heap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(heap.parent)
    root = Path("heap")
    splits = listed(root, {"bolt": {"good": str(heap / "line 1/ok/*.png")}})
    assert [record.image for record in splits.train] == [root / f"line 1/ok/{i:03d}.png" for i in range(3)]


def test_name_with_wildcards_in_it_is_a_name_first(tmp_path: Path) -> None:
    touch(tmp_path, "lot [7]/1.png", "lot 7/2.png")
    assert names(tmp_path, listed(tmp_path, {"bolt": {"good": "lot [7]"}}).train) == ["lot [7]/1.png"]


def test_defect_without_a_telling_folder(tmp_path: Path) -> None:
    touch(tmp_path, "1_ng.png", "a/1_ok.png", "a/1_ng.png", "b/scrap/1.png", "bolt/1.png", "b/1.png")
    defective = ["*_ng.png", "a/*_ng.png", "b", "bolt"]
    assert kinds(tmp_path, listed(tmp_path, {"bolt": {"good": "a/*_ok.png", "defective": defective}})) == {
        "1_ng.png": "defective",  # in the root
        "a/1_ng.png": "defective",  # among good images
        "bolt/1.png": "defective",  # the product's own name
        "b/1.png": "b",
        "b/scrap/1.png": "scrap",
    }


@pytest.mark.parametrize(
    "mask",
    ["m/000_mask.png", "m/000.bmp", "m/dent/000_mask.PNG", "m/scrap/dent/000.png", "m/line/scrap/dent/000_mask.tif"],
)
def test_mask_is_found_by_stem_at_the_top_or_mirrored(tmp_path: Path, mask: str) -> None:
    touch(tmp_path, "ok/0.png", "line/scrap/dent/000.png", mask, "m/other.png")
    products = {"bolt": {"good": "ok", "defective": "line/scrap", "masks": "m"}}
    expected = Record(tmp_path / "line/scrap/dent/000.png", (tmp_path / mask,), "bolt", "dent", 1)
    assert listed(tmp_path, products).test == (expected,)


def test_masks_below_the_images_are_no_images(tmp_path: Path) -> None:
    touch(tmp_path, "ok/0.png", "scrap/000.png", "scrap/labels/000.png")
    splits = listed(tmp_path, {"bolt": {"good": "ok", "defective": "scrap", "masks": "scrap/labels"}})
    assert splits.test == (
        Record(tmp_path / "scrap/000.png", (tmp_path / "scrap/labels/000.png",), "bolt", "scrap", 1),
    )


def test_masks_beside_the_images(tmp_path: Path) -> None:
    touch(tmp_path, "ok/0.png", "scrap/000.png", "scrap/000_mask.png")
    products = {"bolt": {"good": "ok", "defective": "scrap/???.png", "masks": "scrap"}}
    assert [record.masks for record in listed(tmp_path, products).test] == [(tmp_path / "scrap/000_mask.png",)]
    products["bolt"]["defective"] = "scrap"
    message = refusal(tmp_path, products)
    assert message.startswith(f"{tmp_path / 'scrap/000_mask.png'}: is named as the mask of an image")
    assert "narrow data.source.products" in message


@pytest.mark.parametrize(
    "name",
    ["mask", "Masks", "MASKS", "gt", "GT", "groundtruth", "GroundTruth", "ground-truth", "Ground Truth", "label",
     "Labels", "annotation", "Annotations", "seg", "segmentation", "Segmentations", "defect_masks", "gt_masks",
     "label-images"],
)  # fmt: skip
def test_folders_named_as_masks_hold_masks(shop: Path, name: str) -> None:
    expected = [len(record.masks) for record in listed(shop).test]
    (shop / "bottle/masks").rename(shop / "bottle" / name)
    with counting() as passed_over:
        splits = listed(shop)
    assert [len(record.masks) for record in splits.test] == expected
    assert counts(splits)[0].by_defect == {"crack": 1, "dent": 2}
    usual = name.lower() in ("mask", "masks", "ground_truth")
    assert (str(shop / "bottle" / name) in str(passed_over)) is not usual


@pytest.mark.parametrize(
    "kind", ["dent", "scratch", "missing_label", "target", "masked", "segments", "label_torn", "gtx"]
)
def test_kinds_of_defect_are_not_taken_for_masks(tmp_path: Path, kind: str) -> None:
    touch(tmp_path, "nut/good/0.png", f"nut/{kind}/1.png")
    assert [record.defect for record in listed(tmp_path).test] == [kind]


def test_folder_of_labels_in_text_is_none_of_masks(shop: Path) -> None:
    touch(shop, "bottle/labels/000.txt", "nut/labels/000.txt")
    splits = listed(shop)
    assert [record.masks != () for record in splits.test if record.label] == [True, True, True, False]


def test_masks_without_a_defective_image_may_be_a_kind_of_defect(tmp_path: Path) -> None:
    touch(tmp_path, "nut/good/0.png", "nut/good/1.png", "nut/masks/good/1.png")
    assert len(listed(tmp_path, test_share=0.5).test) == 1
    touch(tmp_path, "nut/masks/7.png")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / 'nut/masks'}: is taken for masks, by its name, but nut has no defective")
    assert "rename it" in message


@pytest.mark.parametrize(
    "mask",
    ["dent/7_mask.png", "dent/7-mask.png", "dent/7_Mask.tif", "dent/7_gt.png", "dent/7_label.png", "dent/7 (mask).png",
     "dent/7.mask.png", "dent/7_ground_truth.png", "dent/7_mask_0.png", "dent/mask_7.png", "dent/gt-7.png",
     "dent/7_seg.png", "dent/7mask.png", "hole/7_mask.png", "good/7_mask.png", "good/0_mask.png"],
)  # fmt: skip
@pytest.mark.parametrize("way", ["folders", "patterns"])
def test_refuses_masks_among_the_images(tmp_path: Path, mask: str, way: str) -> None:
    touch(tmp_path, "nut/good/0.png", "nut/dent/7.jpg", "nut/hole/8_1.png", f"nut/{mask}")
    defective = ["nut/dent", "nut/hole"]
    products = {"nut": {"good": "nut/good", "defective": defective}} if way == "patterns" else None
    message = refusal(tmp_path, products)
    assert message.startswith(f"{tmp_path / 'nut' / mask}: is named as the mask of an image")
    assert "move the masks to a folder masks beside good" in message


@pytest.mark.parametrize("name", ["0_masked.png", "front_label.png", "target_7.png", "7_2.png"])
def test_images_that_only_sound_like_masks_are_images(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "nut/good/0.png", "nut/dent/7.jpg", f"nut/dent/{name}")
    assert len(listed(tmp_path).test) == 2


@pytest.mark.parametrize("folder", ["good/masks", "good/GT", "dent/labels", "dent/a/Ground Truth"])
@pytest.mark.parametrize("way", ["folders", "patterns"])
def test_refuses_folders_of_masks_among_the_images(tmp_path: Path, folder: str, way: str) -> None:
    touch(tmp_path, "nut/good/0.png", "nut/dent/7.jpg", f"nut/{folder}/7.png")
    products = {"nut": {"good": "nut/good", "defective": "nut/dent"}} if way == "patterns" else None
    message = refusal(tmp_path, products)
    given = "good" if folder.startswith("good") else "defective"
    name = Path(folder).name
    assert message.startswith(
        f"{tmp_path / 'nut' / folder / '7.png'}: given as a {given} image, but lies in a folder called {name};"
    )


@pytest.mark.parametrize("way", ["folders", "patterns"])
def test_a_product_may_be_called_as_masks_are(tmp_path: Path, way: str) -> None:
    touch(tmp_path, "mask/good/0.png", "mask/good/1.png", "mask/torn/7.jpg")
    products = {"mask": {"good": "mask/good", "defective": "mask/torn"}} if way == "patterns" else None
    assert len(listed(tmp_path, products, 0.5).test) == 2


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("train", ["train", "Train"])
def test_refuses_the_splits_of_one_product(tmp_path: Path, masks: bool, train: str) -> None:
    root = mvtec_tree(tmp_path / "t", categories=("bottle",), defects={"dent": 1, "hole": 1}, size=(8, 8)) / "bottle"
    if not masks:
        shutil.rmtree(root / "ground_truth")
    (root / "train").rename(root / train)
    message = refusal(root)
    held = " and ".join(sorted(("test", train)))
    assert message.startswith(f"data.root: {root} holds {held}, the splits of one category, and no categories")
    shutil.rmtree(root / "test" / "good")
    assert "holds" in refusal(root)


def test_what_is_wrong_with_a_root_is_named(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, *numbered("flat", 3))
    (tmp_path / "up").mkdir()
    shop.rename(tmp_path / "up" / "shop")
    shop = tmp_path / "up" / "shop"
    for root, said in (
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "empty", "; it is empty"),
        (tmp_path / "flat", "; it holds 3 images but not in such folders"),
        (tmp_path / "up", f"; the categories lie one level lower: give data.root={shop}"),
        (shop / "bottle" / "good", f"; it is a part of the category bottle: give data.root={shop / 'bottle'}"),
        (
            shop / "bottle" / "masks" / "dent",
            f"; it is a part of the category bottle: give data.root={shop / 'bottle'}",
        ),
    ):
        assert said in refusal(root)
    assert "one level lower" not in refusal(mvtec_tree(tmp_path / "mvtec"))  # whose train/good is no category


@pytest.mark.parametrize(
    ("tree", "layout", "category"),
    [
        (mvtec_tree, "mvtec", "bottle"), (visa_tree, "visa", "candle"), (btad_tree, "btad", "01"),
        (mvtec_loco_tree, "mvtec_loco", "pushpins"), (mvtec_ad2_tree, "mvtec_ad2", "vial"),
        (mvtec_3d_tree, "mvtec_3d", "bagel"), (kolektor_tree, "kolektor_sdd", None), (real_iad_tree, "real_iad", None),
    ],
)  # fmt: skip
def test_other_layouts_are_told_by_name(tmp_path: Path, tree, layout: str, category: str | None) -> None:
    root = tree(tmp_path / "t")
    with pytest.raises(LayoutError) as caught:
        list_folder(root)
    assert f"looks like data={layout}" in str(with_hint(caught.value, root=root, listing=list_folder))
    if category is not None:
        with pytest.raises(LayoutError) as caught:
            list_folder(root / category)
        said = str(with_hint(caught.value, root=root / category, listing=list_folder))
        if layout == "mvtec":  # takes the folder of one category
            assert f"give data=mvtec data.root={root / category}" in said
        else:
            assert (
                f"looks like a category of data={layout}: give data.root={root} 'data.categories=[{category}]'" in said
            )


@pytest.mark.parametrize("way", ["command line", "file"])
def test_products_come_through_hydra(heap: Path, tmp_path: Path, way: str) -> None:
    products = {"nut": {"good": "line 2/**/*.png"}, "bolt": {"good": ["line 1/ok"], "defective": "line 1/scrap/d*"}}
    if way == "file":
        (tmp_path / "conf/data").mkdir(parents=True)
        text = "defaults: [folder]\nsource:\n  test_share: 0\n  products:\n    nut: {good: line 2/**/*.png}\n"
        text += "    bolt: {good: [line 1/ok], defective: line 1/scrap/d*}\n"
        (tmp_path / "conf/data/mine.yaml").write_text(text)
        given = ["data=mine", f"hydra.searchpath=[{tmp_path / 'conf'}]"]
    else:
        text = "{nut:{good:line 2/**/*.png},bolt:{good:[line 1/ok],defective:line 1/scrap/d*}}"
        given = ["data=folder", f"data.source.products={text}", "data.source.test_share=0"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [*given, f"data.root={heap}"])
    splits = instantiate(cfg.data.source)(heap, categories=None)
    assert splits == listed(heap, products)
    assert len(splits.train) == 6


def test_mistake_in_the_configuration_is_told_the_same(heap: Path) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["data=folder", "data.root=x", "data.source.products={bolt:{godo:line 2}}"])
    with pytest.raises(InputError, match=r"data.source.products.bolt: no key 'godo'. Did you mean 'good'\?"):
        instantiate(cfg.data.source)(heap, categories=None)


def test_refuses_a_root_that_is_none(tmp_path: Path) -> None:
    assert f"data.root: {tmp_path / 'nowhere'} does not exist" in refusal(tmp_path / "nowhere")
    with pytest.raises(LayoutError, match="holds no category; expected good/ in it or in its folders"):
        listed(touch(tmp_path, "bottle/train/good/000.png"))


def test_refuses_a_product_that_holds_products(shop: Path) -> None:
    touch(shop, "good/000.png")
    assert f"both {shop / 'good'} and {shop / 'bottle/good'} are there" in refusal(shop)


def test_refuses_folders_without_good_images_or_with_two_of_masks(shop: Path) -> None:
    (shop / "bottle/ground_truth").mkdir()
    assert f"{shop / 'bottle'}: both masks and ground_truth are there" in refusal(shop)
    (shop / "axle/good").mkdir(parents=True)
    assert f"{shop / 'axle/good'}: no image in it; axle needs" in refusal(shop)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), "half", True, None])
def test_refuses_a_share_that_is_none(shop: Path, share: object) -> None:
    assert f"data.source.test_share={share}: expected a number from 0" in refusal(shop, test_share=share)


@pytest.mark.parametrize(
    ("products", "words"),
    [
        ({}, "data.source.products: got {}, expected names and their images, such as 'data.source.products={bottle:"),
        (["bolt"], "data.source.products: got ['bolt'], expected names"),
        ({"bolt": "line 1/ok"}, "data.source.products.bolt: got line 1/ok, expected good, defective, test_good, masks"),
        ({7: {"good": "line 2"}}, "data.source.products: the name 7 is no text; quote it"),
        (
            {"bolt": {"good": "line 2", "defectve": "x"}},
            "bolt: no key 'defectve'. Did you mean 'defective'? Keys:",
        ),
        ({"bolt": {"defective": "line 2"}}, "data.source.products.bolt: no 'good'; give"),
        ({"bolt": {"good": None}}, "data.source.products.bolt: no 'good'; give"),
        ({"bolt": {"good": []}}, "data.source.products.bolt.good: the list is empty"),
        ({"bolt": {"good": [7]}}, "data.source.products.bolt.good: got 7, expected a folder, file or glob; quote"),
        ({"bolt": {"good": ""}}, "data.source.products.bolt.good: got '', expected"),
        ({"bolt": {"good": ["line 2", "line 3/*"]}}, "bolt.good: 'line 3/*' matches no image in"),
        ({"bolt": {"good": "line 2", "defective": "gone"}}, "bolt.defective: 'gone' matches no image in"),
        ({"bolt": {"good": "../heap/line 2"}}, "bolt.good: '../heap/line 2' leaves data.root="),
        ({"bolt": {"good": "line 2/**/../fine"}}, "bolt.good: 'line 2/**/../fine' leaves data.root="),
        ({"bolt": {"good": "/line 2"}}, "bolt.good: '/line 2' leaves data.root="),
        ({"bolt": {"good": "line 2", "masks": "../m"}}, "bolt.masks: '../m' leaves data.root="),
        ({"bolt": {"good": "line 2", "masks": "m"}}, "/heap/m is no folder; give the folder that holds the masks"),
    ],
)
def test_refuses_products_that_say_too_little_or_wrong(heap: Path, products: object, words: str) -> None:
    assert words in refusal(heap, products)


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..", ".a", "a:b", "what?", "a\nb", "a ", "mean", "Pooled"])
def test_refuses_a_name_that_results_cannot_bear(heap: Path, name: str) -> None:
    message = refusal(heap, {name: {"good": "line 2"}})
    assert message.startswith("data.source.products: ")
    assert "is the name of a row" in message if name.lower() in ("mean", "pooled") else repr(name) in message


def test_refuses_names_that_differ_in_case_only(shop: Path) -> None:
    touch(shop, "Nut/good/000.png")
    message = refusal(shop)
    assert message.startswith(f"{shop / 'nut'}: 'nut' and 'Nut' ({shop / 'Nut'}) differ in case only")
    products = {"nut": {"good": "nut/good"}, "NUT": {"good": "Nut/good"}}
    assert "'NUT' and 'nut' (data.source.products) differ in case only" in refusal(shop, products)


@pytest.mark.parametrize(
    ("part", "other"),
    [("good", "defective"), ("good", "test_good"), ("test_good", "defective")],
)
def test_refuses_an_image_in_two_parts(heap: Path, part: str, other: str) -> None:
    products = {"bolt": {"good": "line 2", part: "line 1/ok", other: "line 1"}}
    key = "data.source.products.bolt"
    first = heap / "line 1/ok/000.png"
    assert refusal(heap, products).startswith(f"{first}: is in {key}.{part} and in {key}.{other}; narrow one")


@pytest.mark.parametrize("part", ["good", "defective"])
def test_refuses_an_image_in_two_products(heap: Path, part: str) -> None:
    products = {"a": {"good": "line 2"}, "b": {"good": "line 1/ok", part: ["line 1/checked", "line 2"]}}
    message = refusal(heap, products)
    key = "data.source.products"
    assert message.startswith(f"{heap / 'line 2/fine/000.png'}: is in {key}.a.good and in {key}.b.{part};")


@pytest.mark.parametrize("folder", ["good", "masks", "ground_truth"])
def test_refuses_good_images_and_masks_as_defective(tmp_path: Path, folder: str) -> None:
    touch(tmp_path, "bolt/good/0.png", f"bolt/test/{folder}/more/0.png")
    expected = (
        f"{tmp_path / 'bolt/test' / folder / 'more/0.png'}: given as a defective image, but lies in a folder called"
    )
    assert refusal(tmp_path).startswith(f"{expected} {folder};")
    products = {"bolt": {"good": "bolt/good", "defective": "bolt/test"}}
    assert refusal(tmp_path, products).startswith(f"{expected} {folder};")


def test_refuses_masks_that_are_missing_or_ambiguous(shop: Path) -> None:
    mask = shop / "bottle/masks/dent/000_mask.png"
    mask.rename(shop / "bottle/masks/dent/spare.png")
    message = refusal(shop)
    assert message.startswith(f"{shop / 'bottle/dent/000.png'}: the defective image has no mask; expected {mask} or ")
    assert str(shop / "bottle/masks/000_mask.png") in message
    touch(shop, "bottle/masks/dent/000.png", "bottle/masks/dent/000_mask.png")
    message = refusal(shop)
    assert message.startswith(f"{shop / 'bottle/dent/000.png'}: two masks")
    assert str(mask) in message
    touch(shop, "bottle/masks/dent/000_mask.bmp")
    assert "000_mask.png: same name as 000_mask.bmp but for the suffix" in refusal(shop)


def test_refuses_a_mask_for_two_images(tmp_path: Path) -> None:
    touch(tmp_path, "ok/0.png", "a/000.png", "b/000.png", "m/000.png")
    products = {"bolt": {"good": "ok", "defective": ["a", "b"], "masks": "m"}}
    expected = f"{tmp_path / 'm/000.png'}: the mask fits both {tmp_path / 'a/000.png'} and {tmp_path / 'b/000.png'};"
    assert refusal(tmp_path, products).startswith(expected)


def test_images_that_differ_in_suffix_only_need_no_mask_or_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "ok/0.png", "ok/0.jpg", "a/000.png", "a/000.jpg", "m/000.png")
    products = {"bolt": {"good": "ok", "defective": "a"}}
    splits = listed(tmp_path, products)
    assert (names(tmp_path, splits.train), names(tmp_path, splits.test)) == (
        ["ok/0.jpg", "ok/0.png"],
        ["a/000.jpg", "a/000.png"],
    )
    products["bolt"]["masks"] = "m"
    assert f"fits both {tmp_path / 'a/000.jpg'} and {tmp_path / 'a/000.png'}" in refusal(tmp_path, products)
