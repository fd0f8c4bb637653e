"""Names in composed and in decomposed Unicode are the same: a Mac writes the second, everything else the first."""

import csv
import json
import unicodedata
from pathlib import Path

import pytest

from support.layouts import mvtec_loco_tree, real_iad_tree, visa_tree
from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.calibration.images import not_trained_on
from uniad_lightning.data.layouts.btad import list_btad
from uniad_lightning.data.layouts.folder import list_folder
from uniad_lightning.data.layouts.json_lines import list_meta
from uniad_lightning.data.layouts.listing import is_image
from uniad_lightning.data.layouts.mix import list_mix
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.layouts.mvtec_loco import list_mvtec_loco
from uniad_lightning.data.layouts.real_iad import list_real_iad
from uniad_lightning.data.layouts.visa import list_visa
from uniad_lightning.data.records import Record
from uniad_lightning.data.selection import image_groups, normal_against_rest
from uniad_lightning.errors import InputError

NAME, KIND = "gehäuse", "größe"
FORMS = ("NFC", "NFD")


def form(name: str, text: str) -> str:
    return unicodedata.normalize(name, text)


def respell(root: Path, spell: str) -> Path:
    """Give every file and folder below `root` its name in one form."""
    for path in sorted(root.rglob("*"), reverse=True):
        path.rename(path.with_name(form(spell, path.name)))
    return root


def plain(root: Path, records: tuple[Record, ...]) -> list[tuple[object, ...]]:
    """What records say, without how their files are spelt; the files must be there."""
    said = []
    for record in records:
        files = [record.image, *record.masks]
        assert all(isinstance(file, Path) and file.is_file() for file in files)
        said.append((*(form("NFC", str(file.relative_to(root))) for file in files), *record[2:]))
    return sorted(said)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture(params=FORMS)
def mac(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """MVTec's layout with accents everywhere; its images and masks are not in the same form."""
    root = mvtec_tree(tmp_path / "t", categories=(NAME, "nut"), defects={KIND: 2, "hole": 1}, size=(8, 8))
    for path in [path for path in root.rglob("*.png") if is_image(path)]:
        path.rename(path.with_name(f"ü{path.name}"))
    respell(root, request.param)
    other = FORMS[1 - FORMS.index(request.param)]
    respell(root / form(request.param, NAME) / "ground_truth", other)
    return root


def test_categories_kinds_and_masks_are_matched(mac: Path) -> None:
    splits = list_mvtec(mac)
    assert splits.categories == (NAME, "nut")
    assert {record.defect for record in splits.test} == {"good", "hole", KIND}
    assert len(splits.test) == 10
    assert all(file.is_file() for record in splits.test for file in (record.image, *record.masks))
    for spell in FORMS:
        assert list_mvtec(mac, categories=[form(spell, NAME)]).categories == (NAME,)
        chosen = normal_against_rest(splits, [form(spell, NAME)])
        assert {record.category for record in chosen.train} == {NAME}


def test_lots_and_categories_are_known_again_after_a_copy(tmp_path: Path) -> None:
    found = []
    for spell in FORMS:
        root = mvtec_tree(tmp_path / spell / "t", categories=(NAME, "nut"), defects={KIND: 2}, size=(8, 8))
        found.append(list_mvtec(respell(root, spell)))
    assert image_groups(found[0].train).tolist() == image_groups(found[1].train).tolist()
    checkpoint = {"categories": [form("NFD", NAME), "nut"], "trained": image_groups(found[0].train)}
    held_out = found[1]._replace(validation=found[1].train)
    assert not_trained_on(held_out, checkpoint).validation == ()


@pytest.mark.parametrize("spell", FORMS)
def test_folders_and_patterns(tmp_path: Path, spell: str) -> None:
    names = [f"{NAME}/good/ä{i}.png" for i in range(4)] + [f"{NAME}/{KIND}/ö{i}.png" for i in range(2)]
    root = respell(touch(tmp_path / "t", *names, *(f"{NAME}/masks/{KIND}/ö{i}_mask.png" for i in range(2))), spell)
    respell(root / form(spell, NAME) / "masks", FORMS[1 - FORMS.index(spell)])
    expected = list_folder(root)
    assert expected.categories == (NAME,)
    assert [(record.defect, len(record.masks)) for record in expected.test if record.label] == [(KIND, 1)] * 2
    for other in FORMS:
        products = {
            form(other, NAME): {
                "good": form(other, f"{NAME}/good/ä*.png"),
                "defective": form(other, f"{NAME}/{KIND}"),
                "masks": form(other, f"{NAME}/masks"),
            }
        }
        assert list_folder(root, products=products) == expected
        parts = {"folder": form(other, f"t/{NAME}")}
        assert plain(root, list_mix(tmp_path, parts=parts).test) == plain(root, expected.test)


def test_two_folders_that_look_alike_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{form(spell, NAME)}/good/{i}.png" for spell in FORMS for i in range(2)))
    with pytest.raises(InputError, match="two folders are called gehäuse, in two forms of Unicode"):
        list_folder(tmp_path)


@pytest.mark.parametrize("spell", FORMS)
def test_lists_name_files_in_either_form(tmp_path: Path, spell: str) -> None:
    root = respell(touch(tmp_path / "t", f"{NAME}/ö1.png", f"{NAME}/ö2.png", f"{NAME}/ö3.png"), spell)
    lines = [{"filename": f"{NAME}/ö1.png", "label": 0}, {"filename": f"{NAME}/ö2.png", "label": 1}]
    lines[1]["maskname"] = f"{NAME}/ö3.png"
    for other in FORMS:
        for name, line in zip(("train.json", "test.json"), lines, strict=True):
            (root / name).write_text(json.dumps({**line, "clsname": form(other, NAME)}))
        for name in ("train.json", "test.json"):
            text = (root / name).read_text()
            (root / name).write_text(json.dumps(json.loads(text), ensure_ascii=False))
        splits = list_meta(root, train="train.json", test="test.json", categories=[form(other, NAME)])
        assert plain(root, splits.test) == [(f"{NAME}/ö2.png", f"{NAME}/ö3.png", NAME, NAME, 1, None)]


def accented(root: Path, old: str) -> Path:
    """Call a category otherwise in every name and list of a fabricated data set."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.suffix in (".csv", ".json"):
            path.write_text(path.read_text().replace(old, NAME))
        if old in path.name:
            path.rename(path.with_name(path.name.replace(old, NAME)))
    return root


@pytest.mark.parametrize("spell", FORMS)
@pytest.mark.parametrize("layout", ["visa", "real_iad"])
def test_the_lists_of_data_sets(tmp_path: Path, layout: str, spell: str) -> None:
    tree, listing, old = {
        "visa": (visa_tree, list_visa, "candle"), "real_iad": (real_iad_tree, list_real_iad, "audiojack"),
    }[layout]  # fmt: skip
    root = tree(tmp_path / "t")
    before = listing(root, categories=[old])
    accented(root, old)
    respell(root, spell)
    found = listing(root, categories=[form("NFD", NAME)])
    assert found.categories == (NAME,)
    assert [len(part) for part in found[1:]] == [len(part) for part in before[1:]]
    assert plain(root, found.test)


@pytest.mark.parametrize("spell", FORMS)
def test_folders_of_masks_and_layouts_of_other_names(tmp_path: Path, spell: str) -> None:
    root = mvtec_loco_tree(tmp_path / "loco")
    for path in [path for path in root.rglob("*") if path.parent.name.endswith("_anomalies")]:
        path.rename(path.with_name(f"ü{path.name}"))
    respell(root, spell)
    for folder in root.glob("*/ground_truth"):
        respell(folder, FORMS[1 - FORMS.index(spell)])
    assert all(record.masks for record in list_mvtec_loco(root).test if record.label)
    btad = mvtec_tree(tmp_path / "btad", categories=("01",), defects={"ko": 1}, size=(8, 8))
    for good in list(btad.glob("*/*/good")):
        good.rename(good.with_name("ok"))
    for mask in btad.rglob("*_mask.png"):
        mask.rename(mask.with_name(form(spell, "ü.png")))
    next(btad.glob("*/test/ko/*.png")).rename(btad / "01/test/ko" / form("NFC", "ü.png"))
    assert len(list_btad(btad).test[-1].masks) == 1


def test_visa_csv_of_windows(tmp_path: Path) -> None:
    root = visa_tree(tmp_path / "visa")
    file = root / "split_csv" / "1cls.csv"
    expected = list_visa(root)
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    for delimiter, encoding in ((",", "utf-8-sig"), (";", "utf-16")):
        text = "\r\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows).replace("/", "\\")
        file.write_bytes(text.encode(encoding))
        assert list_visa(root) == expected


def test_real_iad_json_with_a_mark(tmp_path: Path) -> None:
    root = real_iad_tree(tmp_path / "real_iad")
    expected = list_real_iad(root)
    for file in root.rglob("*.json"):
        file.write_bytes(file.read_text().encode("utf-8-sig"))
    assert list_real_iad(root) == expected


def test_root_in_another_form(tmp_path: Path, uniad) -> None:
    root = mvtec_tree(tmp_path / form("NFD", NAME), categories=(KIND, "nut"), train=4, size=(64, 64))
    (root / KIND / "train/good/000.xyz").touch()
    given = ["data.limit=2", f"data.root={tmp_path / form('NFC', NAME)}", f"data.categories=[{form('NFD', KIND)}]"]
    status, out, err = uniad(
        "train", *SMALL, "trainer.max_epochs=1", "data.batch_size=2", *given, f"output_dir={tmp_path}/r"
    )
    assert status == 0, err
    assert KIND in out
    assert "uniad: warning: skipped, since the suffix is not an image's: .xyz 1 (such as" in err
