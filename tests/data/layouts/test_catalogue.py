"""Public data sets by name: described, told apart, counted against what was published, and mixed."""

import json
import re
import shutil

import pytest

from support.layouts import (
    btad_tree,
    kolektor_tree,
    mpdd_tree,
    mvtec_3d_tree,
    mvtec_ad2_tree,
    mvtec_loco_tree,
    real_iad_tree,
    visa_tree,
)
from support.settings import SMALL
from support.trees import cifar10_binary, cifar10_python, mvtec_tree
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.data.layouts.catalogue import CATALOGUE, describe, differences, recognise
from uniad_lightning.data.layouts.mix import list_mix
from uniad_lightning.data.layouts.published import Images
from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError

TREES = {
    "btad": btad_tree,
    "cifar10": cifar10_python,
    "kolektor_sdd": kolektor_tree,
    "mpdd": mpdd_tree,
    "mvtec": mvtec_tree,
    "mvtec_3d": mvtec_3d_tree,
    "mvtec_ad2": mvtec_ad2_tree,
    "mvtec_loco": mvtec_loco_tree,
    "real_iad": real_iad_tree,
    "visa": visa_tree,
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return {name: write(tmp_path_factory.mktemp(name) / "root") for name, write in TREES.items()}


def test_every_published_data_set_is_an_option_and_has_a_tree():
    assert set(TREES) == set(CATALOGUE)
    for name, published in CATALOGUE.items():
        assert (conf_dir() / "data" / f"{name}.yaml").is_file()
        text = describe(name)
        for part in (published.title, published.licence, published.source, f"data={name}"):
            assert part in text
        assert published.source.startswith("https://")
        assert published.images


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_layout_is_recognised_as_itself_alone(trees, name):
    assert recognise(trees[name]) == f"; it looks like data={name}"
    assert [one for one, published in CATALOGUE.items() if published.recognise(trees[name])] == [name]


def test_nothing_is_recognised_where_there_is_nothing(tmp_path):
    (tmp_path / "file.png").touch()
    for root in (tmp_path, tmp_path / "absent", tmp_path / "file.png"):
        assert recognise(root) == ""


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "given"), [
    ("visa", "mvtec"), ("btad", "mvtec"), ("mvtec", "btad"), ("mvtec", "visa"), ("cifar10", "mvtec"),
    ("mvtec", "cifar10"), ("mvtec_3d", "mvtec_loco"), ("mvtec_loco", "mvtec"), ("mvtec_ad2", "mvtec"),
    ("real_iad", "visa"), ("kolektor_sdd", "mvtec"), ("mvtec", "kolektor_sdd"), ("folder", "mvtec"),
    ("mvtec", "mvtec_3d"), ("mvtec", "mvtec_loco"), ("mvtec", "mvtec_ad2"), ("mvtec_loco", "mvtec_ad2"),
])  # fmt: skip
def test_the_wrong_layout_is_told_the_right_one(uniad, trees, tmp_path, asked, given):
    status, _, err = uniad("train", *SMALL, f"data={asked}", f"data.root={trees[given]}", f"output_dir={tmp_path}/run")
    assert status == 2, err
    last = err.strip().splitlines()[-1]
    assert f"it looks like data={given}" in last, err
    assert "Traceback" not in err


def record(category, label=0):
    return Record(f"{category}.png", (), category, "good", label)


def test_numbers_that_are_not_the_published_ones_are_named():
    published = CATALOGUE["mvtec"]._replace(images={"bottle": Images(2, 0, 1, 0), "cable": Images(1, None, 0, 1)})
    whole = Splits(
        ("bottle", "cable"), (record("bottle"),) * 2 + (record("cable"),), (record("bottle"), record("cable", 1))
    )
    assert differences(published, whole) == []
    assert differences(published, whole._replace(train=whole.train[1:])) == ["bottle: 1 train good images, published 2"]
    assert differences(published, whole._replace(validation=(record("cable"),))) == []
    more = Splits(("bottle", "screw"), whole.train[:2], (record("bottle"),))
    assert differences(published, more) == ["cable: missing", "screw: not a category of MVTec AD"]
    sums = published._replace(images={"all": Images(3, 0, 1, 1)})
    assert differences(sums, whole) == []
    assert differences(sums, more) == [
        "all: 2 train good images, published 3",
        "all: 0 test defective images, published 1",
    ]


def test_published_sums_are_those_of_the_papers():
    sums = {
        name: tuple(sum(column) for column in zip(*published.images.values(), strict=True))
        for name, published in CATALOGUE.items()
        if all(value is not None for images in published.images.values() for value in images)
    }
    assert sums["mvtec"] == (3629, 0, 467, 1258)
    assert sums["visa"] == (8659, 0, 962, 1200)
    assert sums["btad"][0] == 1799
    assert sums["mpdd"] == (888, 0, 176, 282)
    assert sums["mvtec_3d"] == (2656, 294, 249, 948)
    assert sums["cifar10"] == (50000, 0, 10000, 0)


def test_two_data_sets_become_one_and_names_that_collide_get_a_prefix(trees, tmp_path):
    other = mvtec_tree(tmp_path / "other", categories=("bottle", "screw"), train=3)
    parts = {"mvtec": str(trees["mvtec"]), "lab": {"layout": "mvtec", "root": str(other)}, "btad": str(trees["btad"])}
    mixed = list_mix(tmp_path, parts=parts)
    assert {"cable", "lab-bottle", "mvtec-bottle", "screw", "01"} <= set(mixed.categories)
    assert mixed.categories == tuple(sorted(mixed.categories))
    assert "bottle" not in mixed.categories
    assert sum(r.category == "lab-bottle" for r in mixed.train) == 3
    assert all(
        (r.image.is_relative_to(other)) == (r.category in ("lab-bottle", "screw")) for r in mixed.train + mixed.test
    )
    few = list_mix(tmp_path, parts=parts, categories=["lab-bottle", "01"])
    assert few.categories == ("01", "lab-bottle")
    assert {r.category for r in few.train + few.test} == {"01", "lab-bottle"}


def test_parts_may_have_settings_and_relative_roots(tmp_path):
    mvtec_tree(tmp_path / "a", categories=("bottle",), train=5)
    mvtec_tree(tmp_path / "b", categories=("cable",), train=5)
    parts = {"a": {"layout": "mvtec", "root": "a"}, "folder": "b/cable/train"}
    mixed = list_mix(tmp_path, parts=parts)
    assert mixed.categories == ("bottle", "train")
    assert sum(r.category == "train" for r in mixed.train) == 4
    mixed = list_mix(tmp_path, parts={**parts, "folder": {"root": "b/cable/train", "test_share": 0.4}})
    assert sum(r.category == "train" for r in mixed.train) == 3


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({}, "data.source.parts"),
        ("mvtec", "data.source.parts"),
        ({"mvtek": "x"}, "parts.mvtek: no layout 'mvtek'. Did you mean 'mvtec'"),
        ({"lab": {"layout": "mvtec"}}, "parts.lab: got None for its root"),
        ({"mvtec": "absent"}, "parts.mvtec: data.root: .*absent does not exist"),
        ({"visa": "tree"}, "parts.visa: .*it looks like data=mvtec"),
        ({"mvtec": {"root": "tree", "speed": 3}}, "parts.mvtec: mvtec has no key 'speed'"),
        ({"folder": {"root": "tree", "test_shar": 0.1}}, "no key 'test_shar'. Did you mean 'test_share'"),
        ({"meta": "tree"}, "parts.meta: meta needs train"),
        ({"mvtec": 5}, "parts.mvtec: got 5 for its root"),
        ({"mvtec": None}, "parts.mvtec: got None for its root"),
        ({"mvtec": {"layout": 5, "root": "tree"}}, "no layout '5'"),
        ({"mvtec": "tree", "lab": {"layout": "mvtec", "root": "tree"}}, "in two of data.source.parts"),
    ],
)
def test_parts_that_are_none_are_refused(tmp_path, parts, said):
    mvtec_tree(tmp_path / "tree")
    with pytest.raises(InputError, match=said):
        list_mix(tmp_path, parts=parts)


def test_a_prefixed_name_that_exists_is_refused(tmp_path):
    for name, categories in (("a", ("bottle", "b-bottle")), ("b", ("bottle",))):
        mvtec_tree(tmp_path / name, categories=categories)
    parts = {name: {"layout": "mvtec", "root": name} for name in "ab"}
    with pytest.raises(InputError, match="two categories are named b-bottle"):
        list_mix(tmp_path, parts=parts)


def test_a_mix_is_trained_from_the_command_line(uniad, trees, tmp_path):
    parts = f"{{mvtec:{trees['mvtec']},visa:{trees['visa']}}}"
    status, out, err = uniad(
        "train", *SMALL, "data=mix", f"data.source.parts={parts}", "trainer=smoke", f"output_dir={tmp_path}/run"
    )
    assert status == 0, err
    assert "bottle" in out
    assert "candle" in out
    status, out, err = uniad(
        "evaluate", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", f"output_dir={tmp_path}/again"
    )
    assert status == 0, err


def test_the_command_lists_describes_and_verifies(command, trees, tmp_path):
    status, out, err = command("data")
    assert (status, err) == (0, "")
    assert all(f"{name} " in out for name in CATALOGUE)
    status, out, err = command("data", "visa")
    assert (status, err) == (0, "")
    assert "split_csv/1cls.csv" in out
    assert "CC BY 4.0" in out
    status, out, err = command("data", "mvtec", f"data.root={trees['mvtec']}")
    assert status == 1
    assert "bottle: 4 train good images, published 209" in out
    assert "zipper: missing" in out
    status, out, err = command("data", "--help")
    assert (status, err) == (0, "")
    assert "visa" in out
    for words, said in (
        (["vias"], "Did you mean 'visa'"),
        (["visa", "mvtec"], "expected uniad data [NAME [data.root=DIR]]"),
        ([f"data.root={tmp_path}"], "expected uniad data"),
        (["visa", f"data.root={trees['mvtec']}"], "it looks like data=mvtec"),
        (["visa", "data.root=absent"], "absent does not exist"),
    ):
        status, _, err = command("data", *words)
        assert status == 2
        assert len(err.splitlines()) == 1
        assert said in err


def test_own_images_are_counted_as_a_training_would_divide_them(command, trees, tmp_path):
    root = tmp_path / "my photos"
    shutil.copytree(trees["mvtec"] / "bottle" / "train" / "good", root / "bottle" / "good")
    shutil.copytree(trees["mvtec"] / "bottle" / "test" / "hole", root / "bottle" / "hole")
    status, out, err = command("data", "folder", f"data.root={root}")
    assert (status, err) == (0, "")
    (row,) = [line for line in out.splitlines() if "bottle" in line]
    assert [int(number) for number in re.findall(r"\b\d+\b", row)] == [2, 1, 1, 1, 1]  # the last of hole
    assert f"uniad train experiment=parts 'data.root={root}'" in out
    (root / "bottle" / "hole" / "000.png").write_bytes(b"no image")
    status, _, err = command("data", "folder", f"data.root={root}")
    assert status == 2
    assert "bottle/hole/000.png" in err


@pytest.mark.parametrize(("root", "said"), [("absent", "absent does not exist"), ("tree", "it looks like data=mvtec")])
def test_a_wrong_root_or_layout_is_found_before_weights_are_asked_for(uniad, trees, tmp_path, root, said):
    root = {"absent": tmp_path / "absent", "tree": trees["mvtec"]}[root]
    words = ["data=folder", f"data.root={root}", f"backbone.weights={tmp_path}/no.safetensors"]
    for command in ("train", "cache"):
        status, _, err = uniad(command, *words, f"output_dir={tmp_path}/run")
        assert status == 2
        (line,) = err.splitlines()
        assert said in line


@pytest.mark.slow
def test_a_tree_without_masks_has_image_metrics_alone(uniad, tree, tmp_path):
    root = shutil.copytree(tree / "bottle", tmp_path / "bottle")
    shutil.rmtree(root / "ground_truth")
    words = [*SMALL, "trainer=smoke", f"data.root={root}", f"output_dir={tmp_path}/run"]
    status, out, err = uniad("train", *words)
    assert status == 0, err
    assert "no test image has a mask of its defect, so no pixel_auroc, pixel_ap, pixel_f1max, aupro" in out
    assert err.count("no masks, so there are image metrics and no pixel metrics") == 1
    (row,) = json.loads((tmp_path / "run" / "metrics.json").read_text())["categories"].items()
    assert row[0] == "bottle"
    assert row[1]["image_auroc"] is not None
    assert row[1]["pixel_auroc"] is None


def test_a_whole_copy_is_told_so(command, tmp_path, monkeypatch):
    root = cifar10_binary(tmp_path)
    counts = {name: Images(10, 0, 2, 0) for name in CATALOGUE["cifar10"].images}
    monkeypatch.setitem(CATALOGUE, "cifar10", CATALOGUE["cifar10"]._replace(images=counts))
    status, out, err = command("data", "cifar10", f"data.root={root}")
    assert (status, err) == (0, "")
    assert "no number of images differs from those published of CIFAR-10" in out
    shutil.rmtree(root)
