"""Lists in the reference's format: they give the records that the folders give, and errors name the line."""

import json
from pathlib import Path

import pytest

from support.trees import mvtec_tree
from uniad_lightning.data.layouts.json_lines import list_meta
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError


def write(file: Path, *lines: object) -> Path:
    """A list file; what is no text is written as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def as_reference(root: Path, record: Record) -> dict:
    """The line that the reference has for a record of MVTec-AD."""
    line = {"filename": str(record.image.relative_to(root)), "label": record.label}
    line["label_name"] = "defective" if record.label else "good"
    if record.label:
        line["maskname"] = str(record.masks[0].relative_to(root))
    return {**line, "clsname": record.category}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """MVTec-AD with the reference's lists beside it, in another order than the folders'."""
    root = mvtec_tree(tmp_path / "mvtec", categories=("cable", "bottle"), size=(8, 8))
    splits = list_mvtec(root)
    write(tmp_path / "train.json", *(as_reference(root, record) for record in reversed(splits.train)))
    write(tmp_path / "test.json", *(as_reference(root, record) for record in reversed(splits.test)))
    return root


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Images without folders that tell anything, and a list to train on."""
    root = tmp_path / "flat"
    touch(root, "0.png", "1.png", "x/2.png", "m.png")
    write(root / "train.json", {"filename": "0.png", "label": 0, "clsname": "nut"})
    return root


def listed(root: Path, train: str = "train.json", test: str = "test.json", **kwargs: object) -> Splits:
    return list_meta(root, train=train, test=test, **kwargs)


def refusal(root: Path, train: str = "train.json", test: str = "test.json", **kwargs: object) -> str:
    """The message of the refusal, checked to be one line."""
    with pytest.raises(InputError) as caught:
        listed(root, train, test, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_reference_lists_give_what_the_folders_give(tree: Path) -> None:
    splits = listed(tree, "../train.json", "../test.json")
    assert splits == list_mvtec(tree)
    assert listed(tree, str(tree.parent / "train.json"), str(tree.parent / "test.json")) == splits
    assert listed(tree, "../train.json", "../test.json", categories=["cable"]) == list_mvtec(tree, categories=["cable"])


def test_category_comes_from_the_path_as_in_the_reference(tree: Path) -> None:
    for name in ("train.json", "test.json"):
        lines = [json.loads(line) for line in (tree.parent / name).read_text().splitlines()]
        without = [{key: value for key, value in line.items() if key != "clsname"} for line in lines]
        write(tree / name, *without[:1], *({**line, "clsname": None} for line in without[1:]))
    assert listed(tree) == list_mvtec(tree)


def test_what_a_line_may_leave_out(flat: Path) -> None:
    write(
        flat / "test.json",
        {"filename": "1.png", "label": 1, "clsname": "nut"},
        "",
        {"filename": "./x/2.png", "label": 1, "clsname": "nut", "maskname": None, "label_name": "", "more": [1]},
        {"filename": str(flat / "m.png"), "label": 1, "clsname": "nut", "maskname": "1.png", "label_name": "a rust"},
        {"filename": "x/../3.png", "label": 0, "clsname": "nut", "maskname": "gone.png", "label_name": "ok"},
    )
    touch(flat, "3.png")
    assert listed(flat).test == (
        Record(flat / "m.png", (flat / "1.png",), "nut", "a rust", 1),
        Record(flat / "1.png", (), "nut", "defective", 1),
        Record(flat / "3.png", (), "nut", "good", 0),
        Record(flat / "x/2.png", (), "nut", "x", 1),
    )


def test_root_may_be_relative(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(flat / "test.json", {"filename": "x/2.png", "label": 0, "clsname": "nut"})
    monkeypatch.chdir(flat)
    assert listed(Path()).test == (Record(Path("x/2.png"), (), "nut", "good", 0),)
    monkeypatch.chdir(flat / "x")
    assert listed(Path("..")).test == (Record(Path("../x/2.png"), (), "nut", "good", 0),)


def test_byte_order_mark_and_windows_line_ends_do_no_harm(flat: Path) -> None:
    line = '{"filename": "1.png", "label": 0, "clsname": "nut", "label_name": "a\u2028b"}'
    (flat / "test.json").write_bytes(f"\ufeff{line}\r\n\r\n".encode())
    assert listed(flat).test == (Record(flat / "1.png", (), "nut", "good", 0),)


def test_files_of_categories_that_were_not_chosen_may_be_away(tree: Path) -> None:
    (tree / "cable/train/good/000.png").unlink()
    assert "cable/train/good/000.png is not there" in refusal(tree, "../train.json", "../test.json")
    splits = listed(tree, "../train.json", "../test.json", categories=["bottle"])
    assert splits == list_mvtec(tree, categories=["bottle"])
    assert "Did you mean 'bottle'?" in refusal(tree, "../train.json", "../test.json", categories=["botle"])


NUT = {"filename": "1.png", "label": 1, "clsname": "nut"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "{'filename': '1.png'}",
            "not JSON, Expecting property name enclosed in double quotes at column 2;",
        ),
        ("[1, 2]", 'no JSON object; expected one such as {"filename": '),
        ("3", "no JSON object; expected one"),
        ({"label": 0}, "no 'filename'. Expected {"),
        ({"file_name": "1.png", "label": 0}, "no 'filename'. Did you mean 'file_name'? Expected {"),
        ({"filename": "1.png", "clsname": "nut"}, "no 'label'. Expected {"),
        ({**NUT, "label": 2}, "label 2; expected 0 for good or 1 for defective"),
        ({**NUT, "label": "1"}, 'label "1"; expected 0'),
        ({**NUT, "label": True}, "label true; expected 0"),
        ({**NUT, "label": None}, "label null; expected 0"),
        ({**NUT, "filename": None}, "filename null; expected a text"),
        ({**NUT, "filename": ""}, 'filename ""; expected a text'),
        ({**NUT, "clsname": 7}, "clsname 7; expected a text"),
        ({**NUT, "maskname": 7}, "maskname 7; expected a text, in quotes, or a list of texts"),
        ({**NUT, "maskname": 0}, "maskname 0; expected a text"),
        ({**NUT, "maskname": ["m.png", 7]}, 'maskname ["m.png", 7]; expected a text'),
        ({**NUT, "maskname": ["m.png", "gone.png"]}, "gone.png is not there"),
        ({**NUT, "filename": "x\\..\\..\\1.png"}, "leaves data.root="),
        ({**NUT, "label_name": 1}, "label_name 1; expected a text"),
        ({"filename": "x/2.png", "label": 0}, "no 'clsname', and x/2.png has no category to take"),
        ({**NUT, "label_name": "good"}, "label 1 (defective), but its label_name or folder is 'good'"),
        ({**NUT, "filename": "good/1.png"}, "label 1 (defective), but its label_name or folder is 'good'"),
        ({**NUT, "label": 0, "label_name": "defective"}, "label 0 (good), but label_name 'defective'"),
        ({**NUT, "filename": "gone.png"}, "gone.png is not there; expected names relative to data.root="),
        ({**NUT, "maskname": "gone.png"}, "gone.png is not there; expected names relative to data.root="),
        ({**NUT, "filename": "x"}, "/x is not there"),
        ({**NUT, "filename": "x/../../1.png"}, "filename 'x/../../1.png' leaves data.root="),
        ({**NUT, "filename": "/1.png"}, "filename '/1.png' leaves data.root="),
        ({**NUT, "maskname": "../m.png"}, "maskname '../m.png' leaves data.root="),
        ({**NUT, "clsname": "nuts"}, "no training image has the category 'nuts'. Did you mean 'nut'?"),
        ({**NUT, "filename": "x/../m.png"}, "m.png is already listed at "),
        ({**NUT, "filename": "0.png", "label": 0}, "0.png is already listed at "),
    ],
)
def test_error_names_file_and_line(flat: Path, line: object, words: str) -> None:
    file = write(flat / "test.json", {**NUT, "filename": "m.png"}, "", line)
    message = refusal(flat)
    assert message.startswith(f"{file}:3: ")
    assert words in message


def test_refuses_to_train_on_defective_images(flat: Path) -> None:
    write(flat / "test.json", NUT)
    file = write(flat / "train.json", {"filename": "0.png", "label": 0, "clsname": "nut"}, {**NUT, "filename": "m.png"})
    assert refusal(flat).startswith(f"{file}:2: {flat / 'm.png'} is defective (label 1), and training is on good")


@pytest.mark.parametrize(("name", "words"), [("a/b", "'a/b' cannot be"), ("mean", "a row"), ("Nut", "in case only")])
def test_refuses_a_category_that_results_cannot_bear(flat: Path, name: str, words: str) -> None:
    write(flat / "test.json", NUT)
    nut = {"filename": "0.png", "label": 0, "clsname": "nut"}
    file = write(flat / "train.json", nut, {**nut, "filename": "m.png", "clsname": name})
    assert refusal(flat).startswith(f"{file}:2: ")
    assert words in refusal(flat)


@pytest.mark.parametrize("key", ["train", "test"])
def test_refuses_a_list_that_is_not_there_or_is_none(flat: Path, key: str) -> None:
    write(flat / "test.json", NUT)
    file = flat / "list.json"
    given = {key: "list.json"}
    assert f"data.source.{key}: {file} is no file; give the list's path" in refusal(flat, **given)
    write(file, "", " ")
    assert f"{file}: the list is empty; expected lines such as {{" in refusal(flat, **given)
    file.write_bytes(b"\x89PNG")
    assert f"{file}: not UTF-8 at byte 0; expected lines" in refusal(flat, **given)


def test_refuses_a_root_that_is_none(tmp_path: Path) -> None:
    assert f"data.root: {tmp_path / 'nowhere'} does not exist" in refusal(tmp_path / "nowhere")


def test_a_defect_may_have_several_masks(flat: Path) -> None:
    touch(flat, "n.png")
    write(flat / "test.json", {**NUT, "maskname": ["m.png", "n.png", "m.png"]}, {**NUT, "filename": "x/2.png"})
    assert [record.masks for record in listed(flat).test] == [(flat / "m.png", flat / "n.png"), ()]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("escaped", [True, False])
def test_lists_of_windows(tree: Path, encoding: str, escaped: bool) -> None:
    for name in ("train.json", "test.json"):
        lines = [json.loads(line) for line in (tree.parent / name).read_text().splitlines()]
        text = "".join(json.dumps(line).replace("/", r"\\" if escaped else "\\") + "\r\n" for line in lines)
        mark = "\ufeff" if encoding in ("utf-16-le", "utf-16-be") else ""
        (tree / name).write_bytes((mark + text).encode(encoding))
    assert listed(tree) == list_mvtec(tree)


def test_a_backslash_may_be_part_of_a_name(flat: Path) -> None:
    touch(flat, "x\\2.png")
    write(flat / "test.json", {**NUT, "filename": "x\\2.png"})
    assert listed(flat).test[0].image == flat / "x\\2.png"
