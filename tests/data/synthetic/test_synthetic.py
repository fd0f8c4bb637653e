"""The synthetic data set: its layout, that its arguments alone decide it, exact masks, and that it is not trivial."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.paths import ROOT
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.synthetic import dataset as synthetic
from uniad_lightning.data.synthetic.dataset import DEFECTS, SPLITS, render, write_synthetic
from uniad_lightning.data.synthetic.drawings import CATEGORIES
from uniad_lightning.errors import InputError

SMALL = {"size": 48, "train_images": 2, "test_good": 1, "test_per_defect": 1}
SCRIPT = ROOT / "scripts" / "make_synthetic.py"


def _pixels(root: Path) -> dict[str, str]:
    """Digest of every image's pixels by its path below `root`."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest()
        for path in sorted(root.rglob("*.png"))
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synthetic(tmp_path_factory.mktemp("synthetic") / "deep" / "small", **SMALL)


def test_layout_and_counts(small: Path) -> None:
    assert len(CATEGORIES) == 6
    for category in CATEGORIES:
        files = {p.relative_to(small / category).as_posix() for p in (small / category).rglob("*") if p.is_file()}
        defective = {f"test/{d}/000.png" for d in DEFECTS} | {f"ground_truth/{d}/000_mask.png" for d in DEFECTS}
        assert files == {"train/good/000.png", "train/good/001.png", "test/good/000.png"} | defective
    assert {path.name for path in small.iterdir()} == {*CATEGORIES, "synthetic.json"}
    assert [path.name for path in small.parent.iterdir()] == ["small"]


def test_files_hold_what_render_draws(small: Path) -> None:
    drawn = render("gear", "missing", 0, size=48)
    image = Image.open(small / "gear/test/missing/000.png")
    mask = Image.open(small / "gear/ground_truth/missing/000_mask.png")
    assert (image.mode, image.size, mask.mode, mask.size) == ("RGB", (48, 48), "L", (48, 48))
    np.testing.assert_array_equal(np.asarray(image), drawn.image)
    np.testing.assert_array_equal(np.asarray(mask), drawn.mask * np.uint8(255))


def test_listing_reads_it(small: Path) -> None:
    splits = list_mvtec(small)
    assert splits.categories == tuple(sorted(CATEGORIES))
    assert (len(splits.train), len(splits.test)) == (6 * 2, 6 * 5)


@pytest.mark.slow
def test_same_arguments_same_pixels_and_counts_only_add(small: Path, tmp_path: Path) -> None:
    first = _pixels(small)
    assert _pixels(write_synthetic(tmp_path / "again", **SMALL)) == first
    more = _pixels(write_synthetic(tmp_path / "more", size=48, train_images=3, test_good=2, test_per_defect=2))
    assert len(more) == 6 * (3 + 2 + 2 * 8)
    assert {name: more[name] for name in first} == first


def test_images_differ_by_seed_split_and_number() -> None:
    drawn = [render("tile", "train", 0, size=48), render("tile", "train", 0, seed=1, size=48)]
    drawn += [render("tile", split, number, size=48) for split in ("train", "good", "stain") for number in (1, 2)]
    assert len({one.image.tobytes() for one in drawn}) == len(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("category", CATEGORIES)
def test_mask_is_where_the_defect_shows(category: str, defect: str) -> None:
    for number in range(2):
        drawn = render(category, defect, 100 + number)
        change = np.abs(drawn.image.astype(int) - drawn.flawless).max(axis=2)
        assert 20 <= drawn.mask.sum() <= 0.10 * drawn.mask.size
        # Outside there is nothing but rounding, faint rims and a few specks; inside, the mask is filled with change.
        assert (change[~drawn.mask] > 8).sum() <= 12
        assert (change[drawn.mask] > 6).mean() > 0.6
        assert change.max() > 25
        # The defect is drawn on the object as it was, not pasted: no part of it is one flat colour.
        assert drawn.image[drawn.mask].std(axis=0).max() > 3


def test_flawless_twin_of_a_good_image_is_itself() -> None:
    drawn = render("wood", "good", 0, size=48)
    assert drawn.image is drawn.flawless
    assert not drawn.mask.any()


def test_complete_set_is_reused_untouched(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    assert write_synthetic(small, **SMALL) == small
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_other_arguments_are_refused(small: Path) -> None:
    with pytest.raises(InputError, match=r"other arguments.*\"size\": 48.*\"size\": 64.*another folder"):
        write_synthetic(small, **{**SMALL, "size": 64})


def test_foreign_folder_file_and_parent_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for root in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(InputError, match=r"exists and is no synthetic data set.*another folder"):
            write_synthetic(root, **SMALL)
    with pytest.raises(InputError, match=r"the synthetic data set cannot be written; Not a directory"):
        write_synthetic(tmp_path / "notes.txt" / "below", **SMALL)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("lost", ["train/good/001.png", "ground_truth/stain/000_mask.png"])
def test_incomplete_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    blank = np.zeros((48, 48, 3), np.uint8)
    drawn = synthetic.Rendering(blank, blank, np.ones((48, 48), bool))
    monkeypatch.setattr(synthetic, "render", lambda *_, **__: drawn)
    root = write_synthetic(tmp_path / "set", **SMALL)
    (root / "gear" / lost).unlink()
    with pytest.raises(InputError, match="lacks 1 of the 66 files"):
        write_synthetic(root, **SMALL)


def test_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def breaks(*args: object, **options: object) -> synthetic.Rendering:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return render("gear", "train", 0, size=48)

    monkeypatch.setattr(synthetic, "render", breaks)
    with pytest.raises(KeyboardInterrupt):
        write_synthetic(tmp_path / "set", **SMALL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["_fill", "_rename"])
def test_slower_of_two_writers_takes_the_other_ones_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    own = getattr(synthetic, step)

    def overtaken(*args: object) -> None:
        monkeypatch.setattr(synthetic, step, own)
        write_synthetic(tmp_path / "set", **SMALL)
        own(*args)

    monkeypatch.setattr(synthetic, step, overtaken)
    assert len(_pixels(write_synthetic(tmp_path / "set", **SMALL))) == 66
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize(("name", "value"), [("size", 16), ("train_images", 0), ("test_per_defect", 0), ("seed", -1)])
def test_arguments_out_of_range_are_refused(tmp_path: Path, name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"{name} is {value}, expected at least"):
        write_synthetic(tmp_path / "set", **{name: value})


def test_unknown_category_and_split_are_refused() -> None:
    with pytest.raises(InputError, match="No category 'geer'.*gear"):
        render("geer", "train", 0)
    with pytest.raises(InputError, match="No split 'rust'.*scratch"):
        render("gear", "rust", 0)


@pytest.mark.slow
def test_script_writes_and_refuses_in_one_line(tmp_path: Path) -> None:
    options = ["--size", "32", "--train-images", "1", "--test-good", "1", "--test-per-defect", "1"]
    command = [sys.executable, str(SCRIPT), str(tmp_path / "set"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "set")), done.stderr
    refused = subprocess.run([*command, "--seed", "1"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1


Images = NDArray[np.floating]
Score = Callable[[Images, Images], NDArray[np.floating]]


def _auroc(label: NDArray[np.bool_], score: NDArray[np.floating]) -> float:
    """The share of (defective, good) pairs in the right order, ties counting half."""
    bad, good = score[label][:, None], score[~label][None]
    return float((bad > good).mean() + 0.5 * (bad == good).mean())


def _far_from_mean_image(train: Images, test: Images) -> NDArray[np.floating]:
    return np.sqrt(((test - train.mean(axis=0)) ** 2).sum(axis=(1, 2, 3)))


def _far_in(statistic: Callable[[Images], NDArray[np.floating]]) -> Score:
    """Distance to the training images' mean of a statistic (n, k), in their standard deviations."""

    def score(train: Images, test: Images) -> NDArray[np.floating]:
        known = statistic(train)
        return np.abs((statistic(test) - known.mean(axis=0)) / known.std(axis=0)).sum(axis=1)

    return score


def _colour(images: Images) -> NDArray[np.floating]:
    return images.mean(axis=(1, 2))


def _edge_energy(images: Images) -> NDArray[np.floating]:
    grey = images.mean(axis=3)
    return sum(np.abs(np.diff(grey, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))[:, None]


@pytest.fixture(scope="module")
def default_size() -> dict[str, tuple[Images, Images, NDArray[np.bool_]]]:
    """Per category the train images, the test images (n, 128, 128, 3) in [0, 1], and which of these are defective."""
    counts = {"train": 20, "good": 12, **dict.fromkeys(DEFECTS, 4)}

    def shown(category: str, splits: tuple[str, ...]) -> Images:
        return np.stack([render(category, s, i).image for s in splits for i in range(counts[s])]) / np.float32(255)

    label = np.arange(12 + 16) >= 12
    return {category: (shown(category, SPLITS[:1]), shown(category, SPLITS[1:]), label) for category in CATEGORIES}


@pytest.mark.parametrize(
    ("score", "most"),
    [
        pytest.param(_far_from_mean_image, 0.75, id="mean image"),
        pytest.param(_far_in(_colour), 0.80, id="mean colour"),
        pytest.param(_far_in(_edge_energy), 0.80, id="edge energy"),
    ],
)
def test_no_global_statistic_finds_the_defects(
    default_size: dict[str, tuple[Images, Images, NDArray[np.bool_]]], score: Score, most: float
) -> None:
    found = {category: _auroc(label, score(train, test)) for category, (train, test, label) in default_size.items()}
    mean = np.mean(list(found.values()))
    print(f"image AUROC {mean:.3f}, " + ", ".join(f"{category} {value:.3f}" for category, value in found.items()))
    assert mean <= most
