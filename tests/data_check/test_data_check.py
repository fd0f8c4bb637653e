"""`uniad data NAME data.root=DIR check=true`: every kind of finding on a tree that a test has spoilt."""

import csv
import os
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from support.paths import ROOT
from support.trees import cifar10_python, mvtec_tree
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data_check.findings import ERROR, KINDS, NOTE

TRAIN = "bottle/train/good"
MASK = "bottle/ground_truth/scratch/000_mask.png"
DEFECTIVE = "bottle/test/scratch/000.png"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in which nothing is wrong: textures of two products that share no picture."""
    root = mvtec_tree(tmp_path_factory.mktemp("sound"), train=12, good=6, size=(80, 72))
    rng = np.random.default_rng(1)
    for path in sorted(root.rglob("*.png")):
        if "ground_truth" not in path.parts:
            spots = np.kron(rng.normal(0, 12, (10, 9, 1)), np.ones((8, 8, 1)))
            Image.fromarray(np.clip(read_image(path) + spots, 0, 255).astype(np.uint8)).save(path)
    return root


@pytest.fixture
def spoilt(sound: Path, tmp_path: Path) -> Path:
    """A copy of the sound tree, to be spoilt."""
    return shutil.copytree(sound, tmp_path / "tree")


def findings(out: Path) -> list[dict[str, str]]:
    with (out / "data_check.csv").open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def marked(size: tuple[int, int], values: np.ndarray | int) -> Image.Image:
    return Image.fromarray(np.full(size, values, dtype=np.uint8))


def unreadable(root: Path) -> str:
    (root / TRAIN / "003.png").write_bytes(b"no image")
    return f"{TRAIN}/003.png"


def truncated(root: Path) -> str:
    path = root / TRAIN / "003.png"
    path.write_bytes(path.read_bytes()[:2000])
    return f"{TRAIN}/003.png"


def damaged_inside(root: Path) -> str:
    path = root / TRAIN / "003.png"
    raw = path.read_bytes()
    path.write_bytes(raw[:3000] + bytes(300) + raw[3300:])
    return f"{TRAIN}/003.png"


def unreadable_mask(root: Path) -> str:
    (root / MASK).write_bytes(b"")
    return MASK


def mask_of_another_size(root: Path) -> str:
    marked((40, 36), np.eye(40, 36) * 255).save(root / MASK)
    return MASK


def defect_in_the_training(root: Path) -> str:
    shutil.copy(root / DEFECTIVE, root / TRAIN / "100.png")
    return DEFECTIVE


def good_and_defective(root: Path) -> str:
    shutil.copy(root / DEFECTIVE, root / "bottle/test/good/100.png")
    return DEFECTIVE


def copy_in_train_and_test(root: Path) -> str:
    Image.open(root / TRAIN / "003.png").save(root / "bottle/test/good/100.png", optimize=True)  # the same pixels
    return "bottle/test/good/100.png"


def empty_mask(root: Path) -> str:
    marked((80, 72), 0).save(root / MASK)
    return MASK


def full_mask(root: Path) -> str:
    marked((80, 72), 255).save(root / MASK)
    return MASK


def inverted_mask(root: Path) -> str:
    Image.fromarray(255 - pixels(root / MASK)).save(root / MASK)
    return MASK


def smoothed_mask(root: Path) -> str:
    small = Image.open(root / MASK).convert("L").resize((20, 20))
    small.resize((72, 80), Image.Resampling.BILINEAR).save(root / MASK)
    return MASK


def mask_of_a_good_image(root: Path) -> str:
    path = root / "bottle/ground_truth/good/000_mask.png"
    path.parent.mkdir()
    shutil.copy(root / MASK, path)
    return "bottle/ground_truth/good/000_mask.png"


def mask_of_no_image(root: Path) -> str:
    path = root / "bottle/ground_truth/good/777_mask.png"
    path.parent.mkdir()
    shutil.copy(root / MASK, path)
    return "bottle/ground_truth/good/777_mask.png"


def copy_in_two_products(root: Path) -> str:
    shutil.copy(root / TRAIN / "003.png", root / "cable/train/good/100.png")
    return "cable/train/good/100.png"


def near_copy_in_train_and_test(root: Path) -> str:
    Image.open(root / TRAIN / "003.png").resize((144, 160)).resize((72, 80)).save(root / "bottle/test/good/100.png")
    return "bottle/test/good/100.png"


def other_product(root: Path) -> str:
    shutil.move(root / "cable/train/good/003.png", root / TRAIN / "100.png")
    return f"{TRAIN}/100.png"


def constant(root: Path) -> str:
    marked((80, 72), 90).save(root / TRAIN / "003.png")
    return f"{TRAIN}/003.png"


def few(root: Path) -> str:
    for number in range(3, 12):
        (root / TRAIN / f"{number:03d}.png").unlink()
    return TRAIN


def unequal(root: Path) -> str:
    for number in range(1, 12):
        (root / TRAIN / f"{number:03d}.png").unlink()
    return TRAIN


def other_formats(root: Path) -> str:
    for path in (root / TRAIN).iterdir():
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    return "bottle/test/good"


def names_alike(root: Path) -> str:
    folder = root / "bottle/notes"
    folder.mkdir()
    for form in ("NFC", "NFD"):
        (folder / unicodedata.normalize(form, "grün.txt")).touch()
    if len(list(folder.iterdir())) < 2:
        pytest.skip("this file system takes both names for one")
    return f"bottle/notes/{max(path.name for path in folder.iterdir())}"


def case_clash(root: Path) -> str:
    (root / "a.txt").touch()
    (root / "A.txt").touch()
    if len(list(root.glob("[aA].txt"))) < 2:
        pytest.skip("this file system takes both names for one")
    return "a.txt"


def broken_link(root: Path) -> str:
    (root / "bottle/readme.txt").symlink_to(root / "nowhere.txt")
    return "bottle/readme.txt"


def link_to_itself(root: Path) -> str:
    (root / "bottle/self").symlink_to("self")
    return "bottle/self"


def link_loop(root: Path) -> str:
    (root / TRAIN / "up").symlink_to(root / "bottle")
    return f"{TRAIN}/up"


def not_used(root: Path) -> str:
    shutil.copy(root / TRAIN / "003.png", root / "bottle/100.png")
    return "bottle/100.png"


def copied(root: Path) -> str:
    shutil.copy(root / TRAIN / "003.png", root / TRAIN / "100.png")
    return f"{TRAIN}/100.png"


def near_copy(root: Path) -> str:
    Image.open(root / TRAIN / "003.png").resize((144, 160)).resize((72, 80)).save(root / TRAIN / "100.png")
    return f"{TRAIN}/003.png"


def nothing_to_test(root: Path) -> str:
    shutil.rmtree(root / "bottle/test/good")
    return TRAIN


def other_size(root: Path) -> str:
    path = root / "bottle/test/good/003.png"
    Image.fromarray(pixels(path)[:70]).save(path)
    return "bottle/test/good/003.png"


def passed_over(root: Path) -> str:
    (root / TRAIN / "003.heic").touch()
    return f"{TRAIN}/003.heic"


def left_by_a_system(root: Path) -> str:
    (root / TRAIN / "@eaDir").mkdir()
    (root / TRAIN / "@eaDir/003.png").write_bytes(b"a thumbnail")
    return f"{TRAIN}/@eaDir"


def refused(root: Path) -> str:
    (root / MASK).unlink()
    return ""


SPOILT = [
    (refused, "listing refused"), (unreadable, "unreadable"), (unreadable_mask, "unreadable"),
    (truncated, "truncated or damaged"), (damaged_inside, "truncated or damaged"),
    (mask_of_another_size, "mask of another size"), (defect_in_the_training, "defect in the training"),
    (good_and_defective, "good and defective"), (copy_in_train_and_test, "copy in train and test"),
    (empty_mask, "empty mask"), (full_mask, "full mask"), (inverted_mask, "mask of more than half"),
    (smoothed_mask, "values of a mask"), (mask_of_a_good_image, "mask of a good image"),
    (mask_of_no_image, "mask of no image"), (copy_in_two_products, "copy in two products"),
    (near_copy_in_train_and_test, "near copy in train and test"), (other_product, "looks like another product"),
    (constant, "constant image"), (few, "few train images"), (unequal, "unequal products"),
    (other_formats, "train and test in other formats"), (names_alike, "names alike"), (case_clash, "names alike"),
    (broken_link, "broken link"), (link_to_itself, "broken link"), (link_loop, "link to a folder above"),
    (not_used, "image not used"), (copied, "copy"), (near_copy, "near copy"), (nothing_to_test, "nothing to test"),
    (other_size, "size only in the test"), (passed_over, "suffix passed over"), (left_by_a_system, "left by a system"),
]  # fmt: skip


FOLLOWS = {  # what else is found then
    copy_in_two_products: {"looks like another product"},
    unequal: {"few train images"},
    names_alike: {"suffix passed over"},
    case_clash: {"suffix passed over"},
}


def test_every_kind_is_tried() -> None:
    assert {kind for _, kind in SPOILT} == set(KINDS)


def test_every_kind_is_documented() -> None:
    section = (ROOT / "docs/data.md").read_text().partition("## Looking at every file")[2].partition("\n## ")[0]
    listed = dict(re.findall(r"^\| ([\w ]+) \| (\w+) \|", section, re.MULTILINE))
    assert {name: severity for name, severity in listed.items() if severity in ("error", "warning", "note")} == {
        name: kind.severity for name, kind in KINDS.items()
    }


def test_nothing_is_found_in_a_sound_tree(command, sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = command("data", "mvtec", f"data.root={sound}", "check=true")
    assert status == 0, out
    assert "0 errors, 0 warnings, 0 notes; files: data_check/data_check.csv\n" in out
    assert findings(tmp_path / "data_check") == []
    assert not (tmp_path / "data_check/data_check.png").exists()


@pytest.mark.parametrize(("spoil", "kind"), SPOILT, ids=lambda part: getattr(part, "__name__", ""))
def test_each_kind_of_finding_is_found(command, spoilt, tmp_path, spoil, kind):
    file = spoil(spoilt)
    status, out, _ = command("data", "mvtec", f"data.root={spoilt}", "check=true", f"out={tmp_path}/out")
    found = findings(tmp_path / "out")
    assert (kind, str(spoilt / file)) in {(row["kind"], row["file"]) for row in found}, found
    assert {row["remedy"] for row in found if row["kind"] == kind} == {KINDS[kind].remedy}
    assert kind in " ".join(out.split()) or all(word in out for word in kind.split())
    severities = {row["severity"] for row in found}
    assert status == (0 if severities == {NOTE} else 1)
    assert {row["kind"] for row in found} - {kind} <= FOLLOWS.get(spoil, set())


def test_images_behind_a_link_are_used(command, spoilt, tmp_path):
    shutil.move(spoilt / TRAIN, spoilt / "bottle/pool")
    (spoilt / TRAIN).symlink_to(spoilt / "bottle/pool")
    status, _, _ = command("data", "mvtec", f"data.root={spoilt}", "check=true", f"out={tmp_path}/out")
    assert (status, findings(tmp_path / "out")) == (0, [])


def test_several_images_under_a_wrong_name_are_found_each(command, spoilt, tmp_path):
    moved = [spoilt / TRAIN / f"10{number}.png" for number in range(3)]
    for number, path in enumerate(moved):
        shutil.move(spoilt / f"cable/train/good/00{number}.png", path)
    command("data", "mvtec", f"data.root={spoilt}", "check=true", f"out={tmp_path}/out")
    found = {(row["kind"], row["file"]) for row in findings(tmp_path / "out")}
    assert {("looks like another product", str(path)) for path in moved} <= found
    assert {kind for kind, _ in found} == {"looks like another product", "few train images"}  # 9 are left of cable


def test_a_refused_listing_still_opens_every_image(command, spoilt, tmp_path):
    refused(spoilt)
    bad = spoilt / unreadable(spoilt)
    status, _, err = command("data", "mvtec", f"data.root={spoilt}", "check=true", f"out={tmp_path}/out")
    assert status == 1
    assert "Traceback" not in err
    found = {row["kind"]: row for row in findings(tmp_path / "out")}
    assert found.keys() == {"listing refused", "unreadable"}
    assert "000_mask.png" in found["listing refused"]["found"]
    assert found["unreadable"]["file"] == str(bad)


def test_the_picture_shows_the_worst_and_is_removed_when_there_is_nothing(command, spoilt, tmp_path):
    copied(spoilt)
    bad = spoilt / full_mask(spoilt)
    words = ["data", "mvtec", f"data.root={spoilt}", "check=true", f"out={tmp_path}/out"]
    assert command(*words)[0] == 1
    with Image.open(tmp_path / "out/data_check.png") as picture:
        colours = np.asarray(picture.convert("RGB"))
    assert picture.height > 2 * 280
    original = pixels(spoilt / TRAIN / "003.png")
    assert all((colours == value).all(axis=2).any() for value in original[40:42, 30:32].reshape(-1, 3))
    (spoilt / TRAIN / "100.png").unlink()
    bad.write_bytes((spoilt / "bottle/ground_truth/scratch/001_mask.png").read_bytes())
    command(*words)
    assert findings(tmp_path / "out") == []
    assert not (tmp_path / "out/data_check.png").exists()


def test_own_images_and_packed_ones_are_checked(command, spoilt, tmp_path):
    root = tmp_path / "photos"
    shutil.copytree(spoilt / TRAIN, root / "bottle/good")
    shutil.copytree(spoilt / "bottle/test/scratch", root / "bottle/scratch")
    bad = root / "bottle/good/005.png"
    bad.write_bytes(b"")
    status, _, _ = command("data", "folder", f"data.root={root}", "check=true", f"out={tmp_path}/out")
    assert status == 1
    errors = [row for row in findings(tmp_path / "out") if row["severity"] == ERROR]
    assert [(row["kind"], row["file"]) for row in errors] == [("unreadable", str(bad))]
    cifar = cifar10_python(tmp_path / "cifar")
    status, out, err = command("data", "cifar10", f"data.root={cifar}", "check=true", f"out={tmp_path}/packed")
    assert "Traceback" not in err
    assert "120 files of" in out
    assert not [row for row in findings(tmp_path / "packed") if row["severity"] == ERROR]


def test_images_of_other_channels_are_checked_as_a_training_reads_them(command, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (8, 20, 24, 5)).astype(np.uint8)
    for number, image in enumerate(values):
        path = tmp_path / f"photos/bottle/good/{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    words = ("data", "folder", f"data.root={tmp_path / 'photos'}")
    checked = ("check=true", f"out={tmp_path}/out")
    assert command(*words, *checked)[0] == 1
    assert {row["kind"] for row in findings(tmp_path / "out") if row["severity"] == ERROR} == {"unreadable"}
    assert command(*words)[0] == 2
    taken = "data.channels=[3,1,0]"
    command(*words, *checked, taken)
    assert [row for row in findings(tmp_path / "out") if row["severity"] == ERROR] == []
    assert command(*words, taken)[0] == 0
    for none in ("red", f"[{'9' * 5000}]", "[" * 3000):
        assert "such as [2,1,0]" in command(*words, f"data.channels={none}")[2]
    (tmp_path / "afile").write_text("")
    assert "is a file; expected a folder" in command(*words, "check=true", f"out={tmp_path}/afile")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mvtec", "check=true"], "data.root=DIR check=true [out=DIR]"),
        (["mvtec", "data.root=ROOT", "check=yes"], "data.root=DIR check=true [out=DIR]"),
        (["mvtec", "data.root=ROOT", "out=x"], "data.root=DIR check=true [out=DIR]"),
        (["mvtec", "data.root=ROOT", "check=true", "out=ROOT/report"], "lies in data.root"),
        (["mvtec", "data.root=absent", "check=true"], "absent does not exist"),
        (["folder", "data.root=ROOT", "check=true"], "it looks like data=mvtec"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_a_mistake_is_one_line(command, sound, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    status, _, err = command("data", *(word.replace("ROOT", str(sound)) for word in words))
    assert status == 2
    assert len(err.splitlines()) == 1
    assert said in err
    assert os.listdir(tmp_path) == []
