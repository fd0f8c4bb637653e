"""Which classes count as normal, how many images are kept, and how often each is drawn."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from support.settings import SMALL
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.data.sampling import AllImages, Balanced
from uniad_lightning.data.selection import limit_images, normal_against_rest
from uniad_lightning.errors import InputError


def record(category, number, label=0):
    defect = "scratch" if label else "good"
    return Record(Path(f"{category}/{defect}/{number}.png"), (Path("mask.png"),) * label, category, defect, label)


@pytest.fixture
def splits():
    names = tuple("abcd")
    train = tuple(record(name, i) for name in names for i in range(5))
    test = tuple(record(name, i, label) for name in names for label in (0, 1) for i in range(3 + label))
    return Splits(names, train, test, train[::5])


@pytest.mark.parametrize("given", ["02", [0, 2], ["a", "c"], ["a", 2], ("c", "a")])
def test_other_classes_become_defects_named_after_them(splits, given):
    chosen = normal_against_rest(splits, given)
    assert chosen.categories == splits.categories
    assert {r.category for r in chosen.train} == {r.category for r in chosen.validation} == {"a", "c"}
    assert len(chosen.train) == 10
    assert len(chosen.test) == len(splits.test)
    for before, after in zip(splits.test, chosen.test, strict=True):
        if before.category in "ac":
            assert after == before
        else:
            assert after == Record(before.image, (), before.category, before.category, 1)


def test_one_class_against_all_and_all_but_one(splits):
    assert {r.category for r in normal_against_rest(splits, 3).train} == {"d"}
    assert {r.category for r in normal_against_rest(splits, "d").train} == {"d"}
    assert {r.category for r in normal_against_rest(splits, 123).train} == {"b", "c", "d"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("04", "no class '4'.*Classes: 0 a, 1 b, 2 c, 3 d"),
        (["bird"], "no class 'bird'"),
        ("00", "names a twice"),
        (["a", 0], "names a twice"),
        ([], "0 of 4 classes"),
        ("0123", "4 of 4 classes"),
        ([-1], "no class '-1'"),
        ([None], "no class 'None'"),
        (-1, "no class '-1'"),
        (True, "no class 'True'"),
        (3.5, "no class '3.5'"),
        ("²", "no class '²'"),
    ],
)
def test_classes_that_are_none_are_refused(splits, given, said):
    with pytest.raises(InputError, match=said):
        normal_against_rest(splits, given)


def test_names_that_are_digits_are_names_first():
    splits = Splits(("01", "02", "03"), tuple(record(c, 0) for c in ("01", "02", "03")), ())
    assert {r.category for r in normal_against_rest(splits, ["01"]).train} == {"01"}
    assert {r.category for r in normal_against_rest(splits, "12").train} == {"02", "03"}


def test_a_limit_keeps_every_kind_evenly_spaced(splits):
    few = limit_images(splits, 2)
    assert Counter(r.category for r in few.train) == dict.fromkeys("abcd", 2)
    assert Counter((r.category, r.label) for r in few.test) == {(c, label): 2 for c in "abcd" for label in (0, 1)}
    assert [r.image.stem for r in few.train[:2]] == ["0", "2"]
    assert [r.image.stem for r in few.test if (r.category, r.label) == ("a", 1)] == ["0", "2"]
    assert limit_images(splits, 100) == splits
    assert set(few.test) <= set(splits.test)


def test_an_epoch_of_all_images_has_each_once():
    order = AllImages(categories=["a", "b", "b"], seed=1)
    assert sorted(order(0).tolist()) == [0, 1, 2]
    assert any(order(epoch).tolist() != order(0).tolist() for epoch in range(1, 6))


@pytest.mark.parametrize("sizes", [(20, 3, 7), (1, 1, 40), (5, 5, 5), (9,)])
def test_a_balanced_epoch_has_categories_and_their_images_equally_often(sizes):
    categories = [name for name, size in zip("abc", sizes, strict=False) for _ in range(size)]
    order = Balanced(categories=categories, seed=1)
    for epoch in range(3):
        drawn = order(epoch).tolist()
        assert len(drawn) == sum(sizes)
        per_category = Counter(categories[i] for i in drawn)
        assert set(per_category) == set(categories)
        assert max(per_category.values()) - min(per_category.values()) <= 1
        for name in per_category:
            times = Counter(i for i in drawn if categories[i] == name)
            every = [times.get(i, 0) for i, c in enumerate(categories) if c == name]
            assert max(every) - min(every) <= 1
    assert torch.equal(order(1), order(1))
    assert order(0).tolist() != order(1).tolist() or len(set(categories)) == sum(sizes)


@pytest.mark.slow
def test_the_command_line_balances_limits_and_augments(uniad, tree, tmp_path):
    """Each option changes what is learned, and none when it is given again."""
    options = {
        "plain": [], "balanced": ["data.sampling=balanced"], "mirrored": ["data.augmentation.flip=0.5"],
        "again": ["data.augmentation.flip=0.5", "data.num_workers=1"],
    }  # fmt: skip
    learned = {}
    for name, given in options.items():
        status, out, err = uniad(
            "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/{name}", "data.limit=3", "data.batch_size=2",
            "trainer.max_epochs=1", *given,
        )  # fmt: skip
        assert status == 0, err
        row = next(line for line in out.splitlines() if "│ bottle" in line)
        assert [cell.strip() for cell in row.split("│")[1:6]] == ["bottle", "3", "2", "3", "hole 1, scratch 2"]
        state = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        learned[name] = state["network.output_proj.bias"]
    assert torch.equal(learned["mirrored"], learned["again"])
    for one, other in (("plain", "balanced"), ("plain", "mirrored"), ("balanced", "mirrored")):
        assert not torch.equal(learned[one], learned[other])


def test_any_layout_can_be_many_against_many(uniad, tree, tmp_path):
    status, out, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "data.normal_classes=[bottle]",
        "trainer=smoke",
    )  # fmt: skip
    assert status == 0, err
    assert "cable 5" in out
    assert len(list_mvtec(tree).test) == 10
