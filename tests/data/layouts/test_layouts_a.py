"""The listings of VisA, BTAD, MPDD and KolektorSDD: what they list, what they refuse, and what each recognises."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from support.layouts import btad_tree, kolektor_tree, mpdd_tree, visa_tree
from support.trees import mvtec_tree
from uniad_lightning.data.layouts.btad import BTAD, list_btad
from uniad_lightning.data.layouts.catalogue import CATALOGUE
from uniad_lightning.data.layouts.kolektor import KOLEKTOR_SDD, list_kolektor_sdd
from uniad_lightning.data.layouts.listing import LayoutError
from uniad_lightning.data.layouts.mpdd import MPDD
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.layouts.published import Published
from uniad_lightning.data.layouts.visa import VISA, list_visa
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError

MVTEC = CATALOGUE["mvtec"]  # told apart from MPDD there
SETS = {"mvtec": MVTEC, "mpdd": MPDD, "visa": VISA, "btad": BTAD, "kolektor": KOLEKTOR_SDD}
TREES: dict[str, Callable[[Path], Path]] = {
    "mvtec": mvtec_tree,
    "mpdd": mpdd_tree,
    "visa": visa_tree,
    "btad": btad_tree,
    "kolektor": kolektor_tree,
}


@pytest.fixture
def visa(tmp_path: Path) -> Path:
    return visa_tree(tmp_path / "VisA")


@pytest.fixture
def btad(tmp_path: Path) -> Path:
    return btad_tree(tmp_path / "BTAD")


@pytest.fixture
def kolektor(tmp_path: Path) -> Path:
    return kolektor_tree(tmp_path / "KolektorSDD")


def refusal(listing: Callable[..., Splits], root: Path, error: type[InputError] = InputError, **kwargs: object) -> str:
    """The message of the refusal to list `root`, checked to be one line and of exactly this kind."""
    with pytest.raises(InputError) as caught:
        listing(root, **kwargs)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    return str(caught.value)


# All of them


@pytest.mark.parametrize("name", SETS)
def test_each_recognises_its_own_tree_and_no_other(tmp_path: Path, name: str) -> None:
    root = TREES[name](tmp_path / "data")
    assert [other for other, published in SETS.items() if published.recognise(root)] == [name]
    assert SETS[name].listing(root).train


@pytest.mark.parametrize("published", SETS.values(), ids=SETS)
def test_recognises_nothing_in_no_folder(tmp_path: Path, published: Published) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("nowhere", "file", "empty"):
        assert published.recognise(tmp_path / name) is False


@pytest.mark.parametrize("published", SETS.values(), ids=SETS)
def test_recognition_of_what_cannot_be_read_is_no(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: Published
) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert published.recognise(tmp_path) is False


@pytest.mark.parametrize("name", SETS)
def test_refuses_missing_root_and_file(tmp_path: Path, name: str) -> None:
    listing = SETS[name].listing
    assert f"data.root: {tmp_path / 'no'} does not exist; give the folder" in refusal(listing, tmp_path / "no")
    (tmp_path / "data.tar").touch()
    assert f"data.root: {tmp_path / 'data.tar'} is a file" in refusal(listing, tmp_path / "data.tar")


@pytest.mark.parametrize("name", SETS)
def test_refuses_root_of_another_layout(tmp_path: Path, name: str) -> None:
    (tmp_path / "DCIM/2024").mkdir(parents=True)
    assert str(tmp_path) in refusal(SETS[name].listing, tmp_path, LayoutError)


@pytest.mark.parametrize("name", SETS)
def test_refuses_unknown_category(tmp_path: Path, name: str) -> None:
    root = TREES[name](tmp_path / "data")
    message = refusal(SETS[name].listing, root, categories=["submarine"])
    assert f"data.categories: no 'submarine' in {root}" in message
    assert f"Found: {', '.join(SETS[name].listing(root).categories)}" in message


@pytest.mark.parametrize(
    ("published", "sums"),
    [
        (MVTEC, (3629, 0, 467, 1258)),  # paper, table 1
        (VISA, (8659, 0, 962, 1200)),  # 9,621 normal images and 1,200 with anomalies
        (BTAD, (1799, 0, 451, 290)),  # 2,540 images
        (MPDD, (888, 0, 176, 282)),
    ],
)
def test_published_numbers_have_the_published_sums(published: Published, sums: tuple[int, ...]) -> None:
    assert tuple(sum(column) for column in zip(*published.images.values(), strict=True)) == sums


@pytest.mark.parametrize("name", ["mvtec", "mpdd", "visa", "btad"])
def test_categories_of_the_trees_are_published_ones(tmp_path: Path, name: str) -> None:
    assert set(SETS[name].listing(TREES[name](tmp_path)).categories) <= set(SETS[name].images)


# MVTec AD and MPDD, which share a layout


@pytest.mark.parametrize("name", MPDD.images)
def test_mpdd_is_known_by_the_names_of_its_categories(tmp_path: Path, name: str) -> None:
    root = mvtec_tree(tmp_path, categories=[name])
    assert MPDD.recognise(root)
    assert not MVTEC.recognise(root)
    assert MPDD.listing is list_mvtec


def test_mpdd_among_other_products_is_taken_for_mvtec(tmp_path: Path) -> None:
    root = mvtec_tree(mpdd_tree(tmp_path), categories=["bottle"])
    assert MVTEC.recognise(root)
    assert not MPDD.recognise(root)


def _move_into_rgb(category: Path) -> None:
    good = category / "train/good"
    good.rename(category / "train/moved")
    good.mkdir()
    (category / "train/moved").rename(good / "rgb")


def _give_each_image_a_folder_of_masks(category: Path) -> None:
    mask = category / "ground_truth/hole/000_mask.png"
    mask.with_name("000").mkdir()
    mask.rename(mask.with_name("000") / "000.png")


@pytest.mark.parametrize(
    "change",
    [
        lambda category: (category / "validation/good").mkdir(parents=True),
        lambda category: (category / "test").rename(category / "test_public"),
        _move_into_rgb,
        _give_each_image_a_folder_of_masks,
        lambda category: shutil.rmtree(category / "train"),
    ],
    ids=["validation", "test_public", "rgb", "folders_of_masks", "no_training"],
)
def test_mvtec_does_not_recognise_its_younger_relatives(tmp_path: Path, change: Callable[[Path], object]) -> None:
    root = mvtec_tree(tmp_path, categories=["bottle"])
    assert MVTEC.recognise(root)
    change(root / "bottle")
    assert not MVTEC.recognise(root)


# VisA


def test_visa_lists_the_rows_of_its_split_in_order(visa: Path) -> None:
    splits = list_visa(visa)
    assert splits.categories == ("candle", "pcb1")
    assert splits.validation == ()

    def normal(category: str, index: int) -> Record:
        return Record(visa / category / f"Data/Images/Normal/{index:04d}.JPG", (), category, "good", 0)

    def anomaly(category: str, index: int) -> Record:
        data = visa / category / "Data"
        mask = data / f"Masks/Anomaly/{index:03d}.png"
        return Record(data / f"Images/Anomaly/{index:03d}.JPG", (mask,), category, "anomaly", 1)

    assert splits.train == tuple(normal(category, index) for category in splits.categories for index in (1, 2, 4))
    assert splits.test == tuple(
        record
        for name in splits.categories
        for record in (anomaly(name, 0), anomaly(name, 1), normal(name, 0), normal(name, 3))
    )


def test_visa_does_not_list_what_its_split_does_not(visa: Path) -> None:
    before = list_visa(visa)
    shutil.copy(visa / "pcb1/Data/Images/Normal/0000.JPG", visa / "pcb1/Data/Images/Normal/0009.JPG")
    assert list_visa(visa) == before


def test_visa_checks_only_the_chosen_categories(visa: Path) -> None:
    shutil.rmtree(visa / "candle")
    splits = list_visa(visa, categories=["pcb1", "pcb1"])
    assert splits.categories == ("pcb1",)
    assert {record.category for record in splits.train + splits.test} == {"pcb1"}
    missing = visa / "candle/Data/Images/Normal/0002.JPG"
    assert refusal(list_visa, visa).startswith(f"{visa / 'split_csv/1cls.csv'}:2: image: no file {missing}; ")


def test_visa_csv_may_begin_with_a_byte_order_mark(visa: Path) -> None:
    before = list_visa(visa)
    table = visa / "split_csv/1cls.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert list_visa(visa) == before


def test_visa_without_its_csv_says_where_to_get_it(visa: Path) -> None:
    shutil.rmtree(visa / "split_csv")
    message = refusal(list_visa, visa, LayoutError)
    assert message.startswith(f"{visa / 'split_csv/1cls.csv'}: no such file")
    assert VISA.source in message
    assert VISA.recognise(visa)


@pytest.mark.parametrize("column", ["object", "split", "label", "image", "mask"])
def test_visa_refuses_csv_without_a_column(visa: Path, column: str) -> None:
    table = visa / "split_csv/1cls.csv"
    table.write_text(table.read_text().replace(column, "other", 1))
    message = refusal(list_visa, visa)
    assert message.startswith(f"{table}:1: no column '{column}'; found ")
    assert message.endswith("expected object,split,label,image,mask")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: no column 'object'; found none, expected object,split,label,image,mask"),
        (b"object,split,label,image,mask\r\n", ": lists no image; unpack VisA again"),
        (b"object,split,label,image,mask\r\ncandle,\xff\xfe", ": cannot be read as CSV ('utf-8' codec can't decode"),
    ],
)
def test_visa_refuses_csv_without_rows_and_what_is_none(visa: Path, content: bytes, message: str) -> None:
    table = visa / "split_csv/1cls.csv"
    table.write_bytes(content)
    assert refusal(list_visa, visa).startswith(f"{table}{message}")


NORMAL = "candle/Data/Images/Normal/0002.JPG"
ANOMALY = "candle/Data/Images/Anomaly/001.JPG"
MASK = "candle/Data/Masks/Anomaly/001.png"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (f"candle,validation,normal,{NORMAL},", "split is 'validation', expected train or test; correct the file"),
        (f"candle,train,good,{NORMAL},", "label is 'good', expected normal or anomaly; correct the file"),
        ("candle,train,normal,,", "image is empty, expected the path of an image below"),
        ("candle,train", "label is '', expected normal or anomaly; correct the file"),
        ("candle,train,normal,../VisA/candle/x.JPG,", "image is '../VisA/candle/x.JPG', which leaves data.root="),
        ("candle,train,normal,/etc/hostname,", "image is '/etc/hostname', which leaves data.root="),
        ("candle,train,normal,candle/0009.JPG,", "image: no file "),
        ("candle,train,normal,candle/Data,", "image: no file "),
        (f"pcb1,train,normal,{NORMAL},", f"{NORMAL} is not in the folder of its object 'pcb1'; correct either"),
        (f"candle,test,normal,{NORMAL},{MASK}", f"a normal image with mask {MASK}; correct its label or empty"),
        (f"candle,train,anomaly,{ANOMALY},{MASK}", "an anomaly to train on, expected normal images only"),
        (f"candle,test,anomaly,{ANOMALY},", "mask is empty, expected the path of an image below"),
        (f"candle,test,anomaly,{ANOMALY},../{MASK}", f"mask is '../{MASK}', which leaves data.root="),
        (f"candle,test,anomaly,{ANOMALY},candle/none.png", "mask: no file "),
        ("candle,test,normal,candle/Data/Images/Normal/0000.JPG,", "Normal/0000.JPG is on line 2, too; delete one"),
    ],
)
def test_visa_refuses_unsound_row_and_names_its_line(visa: Path, row: str, message: str) -> None:
    table = visa / "split_csv/1cls.csv"
    lines = table.read_text().splitlines()
    lines[1:3] = [lines[2], row]
    table.write_text("\n".join(lines))
    found = refusal(list_visa, visa)
    assert found.startswith(f"{table}:3: ")
    assert message in found


def test_visa_refuses_category_without_training_image(visa: Path) -> None:
    table = visa / "split_csv/1cls.csv"
    table.write_text(table.read_text().replace("pcb1,train", "pcb1,test"))
    assert refusal(list_visa, visa).startswith(f"{table}: no image to train on for pcb1; ")
    assert list_visa(visa, categories=["candle"]).train


def test_visa_sorted_into_train_and_test_is_recognised_as_what_it_is(tmp_path: Path) -> None:
    root = mvtec_tree(tmp_path, categories=["candle"])
    refusal(list_visa, root, LayoutError)
    assert [name for name, published in SETS.items() if published.recognise(root)] == ["mvtec"]


# BTAD


def test_btad_lists_all_records_in_order(btad: Path) -> None:
    splits = list_btad(btad)
    assert splits.categories == ("01", "02", "03")
    suffixes = {"01": (".bmp", ".png"), "02": (".png", ".png"), "03": (".bmp", ".bmp")}
    train, test = [], []
    for category, (suffix, of_mask) in suffixes.items():
        folder = btad / category
        train += [Record(folder / f"train/ok/{i:04d}{suffix}", (), category, "good", 0) for i in range(3)]
        test += [Record(folder / f"test/ok/{i:04d}{suffix}", (), category, "good", 0) for i in range(2)]
        for i in range(2):
            mask = folder / f"ground_truth/ko/{i:04d}{of_mask}"
            test.append(Record(folder / f"test/ko/{i:04d}{suffix}", (mask,), category, "ko", 1))
    assert splits == Splits(("01", "02", "03"), tuple(train), tuple(test))


def test_btad_passes_over_masks_of_good_images_and_a_missing_test(btad: Path) -> None:
    before = list_btad(btad)
    shutil.copytree(btad / "01/test/ok", btad / "01/ground_truth/ok")
    assert list_btad(btad) == before
    for part in ("test", "ground_truth"):
        shutil.rmtree(btad / "01" / part)
    assert {record.category for record in list_btad(btad).test} == {"02", "03"}
    assert list_btad(btad).train == before.train


def test_btad_refuses_category_without_training_images(btad: Path) -> None:
    folder = btad / "02/train/ok"
    shutil.rmtree(folder)
    assert refusal(list_btad, btad, LayoutError).startswith(f"{folder}: no such folder; 02 needs")
    folder.mkdir()
    assert refusal(list_btad, btad).startswith(f"{folder}: no image in it")


def test_btad_refuses_image_without_mask_and_mask_without_image(btad: Path) -> None:
    (btad / "01/ground_truth/ko/0001.png").rename(btad / "01/ground_truth/ko/0001_mask.png")
    message = refusal(list_btad, btad)
    assert message.startswith(f"{btad / '01/test/ko/0001.bmp'}: the defective image has no mask; expected ")
    assert str(btad / "01/ground_truth/ko/0001.png") in message
    (btad / "01/test/ko/0001.bmp").unlink()
    assert refusal(list_btad, btad).startswith(f"{btad / '01/ground_truth/ko/0001_mask.png'}: the mask has no image")


def test_btad_refuses_its_root_given_a_folder_too_deep(btad: Path) -> None:
    message = refusal(list_btad, btad / "01", LayoutError)
    assert message.startswith(f"data.root: {btad / '01'} holds no category of BTAD; give the folder that holds ")


# KolektorSDD


def item_of(record: Record) -> str:
    assert isinstance(record.image, Path)
    return record.image.parent.name


def test_kolektor_tests_defects_of_all_items_and_good_images_of_every_fifth(kolektor: Path) -> None:
    def good(item: int, part: int) -> Record:
        return Record(kolektor / f"kos{item:02d}/Part{part}.jpg", (), "commutator", "good", 0)

    def defective(item: int, part: int) -> Record:
        folder = kolektor / f"kos{item:02d}"
        label = folder / f"Part{part}_label.bmp"
        return Record(folder / f"Part{part}.jpg", (label,), "commutator", "defect", 1)

    splits = list_kolektor_sdd(kolektor)
    assert splits.categories == ("commutator",)
    assert splits.train == tuple(good(item, part) for item in (1, 2, 3, 4, 6) for part in (0, 2))
    bad = [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (5, 2), (6, 1)]
    assert splits.test == (*(defective(item, part) for item, part in bad), good(5, 0))
    assert splits.validation == ()
    assert list_kolektor_sdd(kolektor, categories=["commutator"]) == splits


def test_kolektor_never_tests_a_good_image_of_an_item_it_trains_on(kolektor: Path) -> None:
    for number in range(7, 51):
        shutil.copytree(kolektor / "kos01", kolektor / f"kos{number:02d}")
    splits = list_kolektor_sdd(kolektor)
    trained = {item_of(record) for record in splits.train}
    tested = {item_of(record) for record in splits.test if record.label == 0}
    assert tested == {f"kos{number:02d}" for number in range(5, 51, 5)}
    assert len(trained) == 40
    assert not trained & tested


def test_kolektor_split_of_an_item_does_not_depend_on_the_others(kolektor: Path) -> None:
    before = list_kolektor_sdd(kolektor)
    shutil.rmtree(kolektor / "kos02")
    after = list_kolektor_sdd(kolektor)
    assert after.train == tuple(record for record in before.train if item_of(record) != "kos02")
    assert after.test == tuple(record for record in before.test if item_of(record) != "kos02")


def test_kolektor_one_pixel_that_is_not_black_is_a_defect(kolektor: Path) -> None:
    label = kolektor / "kos01/Part0_label.bmp"
    with Image.open(label) as picture:
        picture.putpixel((31, 0), 1)
        picture.save(label)
    image = kolektor / "kos01/Part0.jpg"
    assert list_kolektor_sdd(kolektor).test[0] == Record(image, (label,), "commutator", "defect", 1)


def test_kolektor_passes_over_what_is_no_item(kolektor: Path) -> None:
    before = list_kolektor_sdd(kolektor)
    shutil.copytree(kolektor / "kos01", kolektor / "kos01 copy")
    (kolektor / "kos01/._Part0.jpg").touch()
    (kolektor / "kos01/Thumbs.db").touch()
    assert list_kolektor_sdd(kolektor) == before


def test_kolektor_refuses_image_without_label_and_label_without_image(kolektor: Path) -> None:
    label, image = kolektor / "kos03/Part2_label.bmp", kolektor / "kos03/Part2.jpg"
    label.rename(kolektor / "label.bmp")
    message = refusal(list_kolektor_sdd, kolektor)
    assert message.startswith(f"{image}: no label")
    assert str(label) in message
    (kolektor / "label.bmp").rename(label)
    image.unlink()
    message = refusal(list_kolektor_sdd, kolektor)
    assert message.startswith(f"{label}: the label has no image; expected {image}")


def test_kolektor_refuses_empty_item_and_damaged_label(kolektor: Path) -> None:
    (kolektor / "kos04/Part0_label.bmp").write_bytes(b"BM")
    assert refusal(list_kolektor_sdd, kolektor).startswith(f"{kolektor / 'kos04/Part0_label.bmp'}: ")
    shutil.rmtree(kolektor / "kos04")
    (kolektor / "kos04").mkdir()
    assert refusal(list_kolektor_sdd, kolektor).startswith(f"{kolektor / 'kos04'}: no image in it")


def test_kolektor_refuses_to_train_on_nothing(kolektor: Path) -> None:
    for number in (1, 2, 3, 4, 6):
        shutil.rmtree(kolektor / f"kos{number:02d}")
    assert "has no good image to train on; unpack kos01 to kos50" in refusal(list_kolektor_sdd, kolektor)
