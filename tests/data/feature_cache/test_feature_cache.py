"""Features computed once: found again, told apart, mended, shared by processes, and the same training as without."""

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from support.feature_stores import SHAPE, disk, features, names
from support.paths import TESTS
from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning.data.feature_cache import store as feature_cache
from uniad_lightning.data.feature_cache.encoding import pack_mask, signatures, unpack_mask
from uniad_lightning.data.feature_cache.room import make_room
from uniad_lightning.data.feature_cache.store import (
    MISSING,
    DiskStore,
    MemoryStore,
    StoreError,
)
from uniad_lightning.data.feature_cache.usage import bound, stores
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.records import Packed
from uniad_lightning.errors import InputError


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    return disk(tmp_path) if request.param == "disk" else MemoryStore(shape=SHAPE)


def test_what_is_kept_is_found_in_any_order(store):
    values = features(5)
    store.add(names(3), values[:3], [b"a", b"", b"c"])
    store.add(names(2, first=3), values[3:], [b"", b"e"])
    slots = store.find([*names(5)[::-1], b"another"])
    assert slots[-1] == MISSING
    assert torch.equal(store.features(slots[:5]), values.half().flip(0))
    assert [store.mask(name) for name in names(5)] == [b"a", b"", b"c", b"", b"e"]
    assert store.features(slots[:0]).shape == (0, *SHAPE)
    assert store.features(slots[:2]).is_contiguous(memory_format=torch.channels_last)


def test_a_store_is_found_again_and_another_setting_has_another(tmp_path):
    disk(tmp_path).add(names(2), features(2), [b"", b""])
    again, other = disk(tmp_path), disk(tmp_path, image_size=[8, 8])
    assert (again.find(names(2)) != MISSING).all()
    assert (other.find(names(2)) == MISSING).all()
    assert again.folder != other.folder
    assert json.loads((other.folder / "about.json").read_text())["image_size"] == [8, 8]


def test_features_that_are_damaged_are_missing_and_can_be_kept_again(tmp_path):
    values = features(3)
    disk(tmp_path).add(names(3), values, [b""] * 3)
    (path,) = (tmp_path / "cache").glob("*/features-00000.bin")
    with path.open("r+b") as file:
        file.seek(48 + 5)  # within the second of three slots of 48 bytes
        file.write(b"\xff")
    store = disk(tmp_path)
    assert (store.find(names(3)) == MISSING).tolist() == [False, True, False]
    store.add(names(1, first=1), values[1:2], [b""])
    assert torch.equal(store.features(store.find(names(3))), values.half())


def test_a_file_that_is_cut_or_gone_is_mended(tmp_path):
    disk(tmp_path).add(names(3), features(3), [b""] * 3)
    (path,) = (tmp_path / "cache").glob("*/features-00000.bin")
    os.truncate(path, 60)  # within the second of three slots
    assert (disk(tmp_path).find(names(3)) == MISSING).tolist() == [False, True, True]
    path.unlink()
    store = disk(tmp_path)
    assert (store.find(names(3)) == MISSING).all()
    store.add(names(3), features(3), [b""] * 3)
    assert (store.find(names(3)) != MISSING).all()


def test_an_index_that_is_none_is_made_anew(tmp_path):
    disk(tmp_path).add(names(3), features(3), [b""] * 3)
    (path,) = (tmp_path / "cache").glob("*/index.sqlite")
    path.write_bytes(b"this is no data base" * 100)
    store = disk(tmp_path)
    assert (store.find(names(3)) == MISSING).all()
    store.add(names(3), features(3), [b""] * 3)
    assert (store.find(names(3)) != MISSING).all()


def test_an_entry_is_there_whole_or_not_at_all(tmp_path):
    """A process that dies between its features and its entry leaves slots that nobody has."""
    store = disk(tmp_path)
    with sqlite3.connect(store.folder / "index.sqlite") as index:
        index.execute("update slots set next = 7")
    assert (store.find(names(7)) == MISSING).all()
    store.add(names(1), features(1), [b""])
    assert store.find(names(1)).tolist() == [7]


def test_features_beyond_float16_are_refused(store):
    with pytest.raises(InputError, match=r"data\.cache: .*float16.*data\.cache=off"):
        store.add(names(1), torch.full((1, *SHAPE), 1e5), [b""])
    assert (store.find(names(1)) == MISSING).all()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StoreError, match=r"data\.cache_dir=.*cache: "):
        disk(tmp_path)


def test_a_full_disk_ends_the_filling_with_a_reason_and_nothing_else(small_disk, monkeypatch):
    monkeypatch.setattr(feature_cache, "SPARE_BYTES", -(1 << 40))  # nobody looks for room beforehand
    store = DiskStore(cache=small_disk / "cache", about={}, shape=(64, 32, 32))
    values, count = torch.ones(4, 64, 32, 32), 0

    def fill():
        nonlocal count
        for count in range(0, 64, 4):
            store.add(names(4, first=count), values, [b""] * 4)

    with pytest.raises(StoreError, match=r"data\.cache_dir=.*(full|No space left)"):
        fill()
    assert count > 16
    slots = store.find(names(count + 4))
    assert (slots[:count] != MISSING).all()
    assert (slots[count:] == MISSING).all()
    assert torch.equal(store.features(slots[:count])[::8], values[:1].half().expand(-(-count // 8), -1, -1, -1))


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["unwritable", "full", "fills up", "bounded"])
def test_where_nothing_can_be_kept_auto_goes_without_and_disk_says_why(
    losses, uniad, tree, tmp_path, monkeypatch, fault
):
    said = f"data.cache_dir={tmp_path}/cache: "
    option = "data.cache_size=1e-6" if fault == "bounded" else "data.cache_size=null"
    if fault == "full":
        monkeypatch.setattr(DiskStore, "room_for", lambda self, count: count == 0)
    elif fault == "fills up":  # while the features are computed: of 18 images 8 have room
        room = iter([True, True, True, *[False] * 100])
        monkeypatch.setattr(DiskStore, "room_for", lambda self, count: next(room))
    elif fault == "unwritable":
        (tmp_path / "cache").write_text("a file")
    _, _, err = losses("auto", option, "data.eval_batch_size=4")
    assert err.count("warning: features") == 1
    assert f"uniad: warning: features are not cached; {said}" in err
    status, _, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"data.cache_dir={tmp_path}/cache", f"output_dir={tmp_path}/disk",
        "data.cache=disk", option,
    )  # fmt: skip
    assert status == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith(f"uniad: {said}")
    assert last.endswith("choose another folder, or data.cache=off")


def test_masks_come_back_as_they_were():
    rng = np.random.default_rng(0)
    for mask in (rng.random((13, 7)) < 0.3, np.zeros((13, 7), bool), np.ones((1, 1), bool)):
        assert np.array_equal(unpack_mask(pack_mask(mask), mask.shape), mask)
    assert pack_mask(np.zeros((5, 5), bool)) == b""


def test_a_signature_follows_the_files_and_nothing_else(tmp_path):
    tree = mvtec_tree(tmp_path / "tree")
    records = list_mvtec(tree).test
    before = signatures(records)
    assert len(set(before)) == len(records)
    assert signatures(records) == before
    hole = next(i for i, record in enumerate(records) if record.defect == "hole")
    later = time.time() + 5
    os.utime(records[hole].masks[0], (later, later))
    os.utime(records[0].image, (later, later))
    changed = [i for i, (a, b) in enumerate(zip(before, signatures(records), strict=True)) if a != b]
    assert changed == sorted({0, hole})
    one = records[0]._replace(image=Packed(records[0].image, 0))
    assert len(set(signatures([one, one._replace(image=Packed(one.image.file, 1))]))) == 2
    records[0].image.unlink()
    with pytest.raises(InputError, match="no such file"):
        signatures(records)


def kept(tmp_path, *backbones):
    """A cache with a store of each, the first used longest ago, that no process holds."""
    for i, name in enumerate(backbones):
        store = disk(tmp_path, backbone=name)
        store.add(names(1), features(1), [b""])
        os.utime(store.folder, (1000 + i, 1000 + i))
    return tmp_path / "cache"


def backbones(cache):
    return [store.about.get("backbone") for store in stores(cache)]


def test_the_stores_used_least_go_first(tmp_path):
    cache = kept(tmp_path, "old", "middle", "new")
    listed = stores(cache)
    assert backbones(cache) == ["new", "middle", "old"]
    assert all(store.images == 1 and 0 < store.size < 1e6 for store in listed)
    unfinished = disk(tmp_path, backbone="unfinished").folder  # its process died before it had an index
    (unfinished / "index.sqlite").unlink()
    os.utime(unfinished, (0, 0))
    assert [(store.about["backbone"], store.images) for store in stores(cache)][-1] == ("unfinished", 0)
    assert bound(cache, sum(store.size for store in listed))[0].folder == unfinished
    gone = bound(cache, listed[0].size + listed[1].size)
    assert [store.about["backbone"] for store in gone] == ["old"]
    assert backbones(cache) == ["new", "middle"]
    assert bound(cache, 10**9) == []
    assert len(bound(cache, 0)) == 2
    assert stores(cache) == []


HOLDING = """
import sys
from support.feature_stores import disk, features, names
from pathlib import Path
store = disk(Path(sys.argv[1]), backbone="held")
store.add(names(1), features(1), [b""])
print("held", flush=True)
sys.stdin.readline()
store.add(names(1, first=1), features(1), [b""])  # goes on filling
print(len(store.find(names(2))), (store.find(names(2)) >= 0).all(), flush=True)
"""


@pytest.mark.slow
def test_a_store_that_a_process_holds_is_left_until_it_ends(tmp_path, command, monkeypatch):
    monkeypatch.setenv("UNIAD_CACHE", str(kept(tmp_path, "free")))
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=TESTS,
    )  # fmt: skip
    assert other.stdout.readline() == "held\n"
    _, out, _ = command("cache", "keep=0")
    assert out.count("deleted") == 1
    assert "these are in use" in out
    assert backbones(tmp_path / "cache") == ["held"]
    assert other.communicate("go on\n")[0] == "2 True\n"
    assert other.returncode == 0
    assert len(bound(tmp_path / "cache", 0)) == 1


@pytest.mark.parametrize(
    "files",
    [
        {"notes/about.json": "{}"},
        {"notes/about.json": "{}", "notes/index.sqlite": ""},
        {f"{'0' * 24}/about.json": '{"title": "my own"}'},
        {f"{'a' * 24}/about.json": "", f"{'a' * 24}/thesis.tex": "x"},
        {f"{'b' * 24}/sub/about.json": ""},
        {f"{'c' * 24}": "a file"},
        {"about.json": "{}"},
    ],
)
def test_what_is_none_of_the_cache_is_neither_listed_nor_removed(tmp_path, files):
    cache = kept(tmp_path, "ours")
    for name, text in files.items():
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text(text)
    (cache / ("d" * 24)).symlink_to(tmp_path)
    assert backbones(cache) == ["ours"]
    assert len(bound(cache, 0)) == 1
    assert {name: (cache / name).read_text() for name in files} == files
    assert tmp_path.is_dir()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"backbone": '])
def test_a_damaged_record_breaks_nothing_and_its_store_can_go(tmp_path, command, monkeypatch, text):
    monkeypatch.setenv("UNIAD_CACHE", str(kept(tmp_path, "x", "y")))
    folder = next(store.folder for store in stores(tmp_path / "cache") if store.about["backbone"] == "x")
    (folder / "about.json").write_text(text)
    status, out, err = command("cache")
    assert (status, err) == (0, "")
    assert "is damaged" in out
    assert "2 settings" in out
    disk(tmp_path, backbone="x")  # its next use mends it
    assert backbones(tmp_path / "cache") == ["x", "y"]
    (folder / "about.json").write_text(text)
    assert len(bound(tmp_path / "cache", 0)) == 2


def test_a_cache_makes_room_within_its_bound_and_refuses_what_exceeds_it(tmp_path):
    cache = kept(tmp_path, "old", "middle", "new")
    one = stores(cache)[0].size
    store = disk(tmp_path, backbone="next")
    make_room(store, 4, 3 * one)
    assert "old" not in backbones(cache)
    assert {"next", "new"} <= {*backbones(cache)}
    with pytest.raises(StoreError, match=r"of 1000000 images take 0\.048 GB.*data\.cache_size=\.\.\. allows more"):
        make_room(store, 10**6, 10 * one)
    assert "new" in backbones(cache)
    make_room(store, 4, None)  # a tenth of the disk


@pytest.mark.parametrize("size", ["0", "-1", "many", "true"])
def test_a_bound_that_is_none_is_refused(uniad, tree, tmp_path, size):
    status, _, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", f"data.cache_size={size}"
    )
    assert status == 2
    assert "expected GB above 0" in err.splitlines()[-1]


@pytest.fixture
def losses(uniad, tree, tmp_path):
    """Trains on the tree and returns the loss of every step, and the results."""

    def run(name, *options, data=tree):
        status, out, err = uniad(
            "train", *SMALL, f"data.root={data}", f"data.cache_dir={tmp_path}/cache", f"output_dir={tmp_path}/{name}",
            "trainer.log_every_n_steps=1", *options,
        )  # fmt: skip
        assert status == 0, err
        with (tmp_path / name / "logs" / "version_0" / "metrics.csv").open() as file:
            steps = [float(row["train/loss_step"]) for row in csv.DictReader(file) if row.get("train/loss_step")]
        with (tmp_path / name / "results.csv").open() as file:
            rows = {row["category"]: float(row["pixel_auroc"]) for row in csv.DictReader(file)}
        return steps, rows, err

    return run


@pytest.mark.slow
@pytest.mark.parametrize("standardize", ["true", "false"])
def test_training_from_the_cache_is_training_without_it_up_to_rounding(losses, tmp_path, standardize):
    options = [f"standardize={standardize}", "validate_every=1"]
    without, rows, err = losses("off", *options, "data.cache=off")
    assert "features:" not in err
    assert not (tmp_path / "cache").exists()
    assert len(without) == 8
    for mode in ("auto", "disk", "memory"):
        steps, cached, _ = losses(mode, *options, f"data.cache={mode}")
        assert steps == pytest.approx(without, rel=2e-4)
        assert cached == pytest.approx(rows, abs=2e-3)
    again, repeated, err = losses("again", *options, "data.cache=disk")
    assert again == losses("third", *options, "data.cache=disk")[0]
    assert "features:" not in err  # nothing was left to compute


@pytest.mark.slow
def test_a_changed_image_is_computed_again_and_it_alone(losses, tree, tmp_path):
    data = shutil.copytree(tree, tmp_path / "copy")
    _, _, err = losses("first", "data.cache=disk", data=data)
    assert "18/18" in err  # train images
    later = time.time() + 5
    os.utime(data / "bottle" / "train" / "good" / "003.png", (later, later))
    _, _, err = losses("second", "data.cache=disk", data=data)
    assert "1/1" in err
    assert "18/18" not in err


@pytest.mark.slow
def test_auto_caches_what_is_looked_at_again(losses, tmp_path):
    losses("once", "trainer.max_epochs=1")
    assert not (tmp_path / "cache").exists()
    losses("short", "trainer=smoke", "trainer.accelerator=cpu")
    assert not (tmp_path / "cache").exists()
    losses("augmented", "data.augmentation.flip=0.5")
    assert not (tmp_path / "cache").exists()
    losses("unfrozen", "backbone.trainable=true")
    assert not (tmp_path / "cache").exists()
    losses("twice")
    assert stores(tmp_path / "cache")[0].images == 18
    losses("validated", "validate_every=1")
    assert stores(tmp_path / "cache")[0].images == 28


@pytest.mark.parametrize("mode", ["disk", "memory"])
@pytest.mark.parametrize(
    ("option", "said"),
    [("data.augmentation.flip=0.5", "data.augmentation"), ("backbone.trainable=true", "backbone.trainable=true")],
)
def test_a_cache_of_what_changes_is_refused_with_the_reason(uniad, tree, tmp_path, mode, option, said):
    status, _, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", f"data.cache={mode}", option
    )
    assert status == 2
    last = err.strip().splitlines()[-1]
    assert f"data.cache={mode}: " in last
    assert said in last
    assert "data.cache=off" in last


def test_another_mode_is_refused(uniad, tree, tmp_path):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "data.cache=dsik")
    assert status == 2
    assert "data.cache=dsik: expected one of auto, off, memory, disk. Did you mean 'disk'?" in err


def test_an_interrupted_extraction_goes_on(uniad, tree, tmp_path):
    """The first run meets a broken image half way through; what it had done is not done again."""
    data = shutil.copytree(tree, tmp_path / "copy")
    broken = data / "cable" / "train" / "good" / "008.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60] + bytes(len(whole) - 80) + whole[-20:])  # not found before it is decoded
    options = [
        *SMALL, f"data.root={data}", f"data.cache_dir={tmp_path}/cache", "data.cache=disk", "data.eval_batch_size=4",
        f"output_dir={tmp_path}/run",
    ]  # fmt: skip
    status, _, err = uniad("train", *options)
    assert status == 2
    assert "008.png" in err
    done = stores(tmp_path / "cache")[0].images
    assert done == 16
    broken.write_bytes(whole)
    status, _, err = uniad("train", *options, "overwrite=true")
    assert status == 0, err
    assert "2/2" in err


@pytest.mark.slow
def test_the_command_fills_lists_and_bounds(uniad, command, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIAD_CACHE", str(tmp_path / "cache"))
    status, out, err = uniad("cache", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run")
    assert status == 0, err
    assert "features of 18 train and 10 test images are kept" in out
    assert not (tmp_path / "run").exists()
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "validate_every=1")
    assert status == 0, err
    assert "features:" not in err
    status, out, err = command("cache")
    assert (status, err) == (0, "")
    assert "resnet18" in out
    assert " 28 " in out
    status, out, err = command("cache", "keep=many")
    assert status == 2
    assert "expected keep=SIZE, such as keep=20GB" in err
    status, out, err = command("cache", "keep=1GB")
    assert "deleted" not in out
    status, out, err = command("cache", "keep=0")
    assert (status, err) == (0, "")
    assert "(28 images)" in out
    assert "0 settings" in out
    status, _, err = uniad("cache", *SMALL, f"data.root={tree}", "data.augmentation.flip=0.5")
    assert status == 2
    assert "data.augmentation" in err


@pytest.mark.slow
def test_evaluation_takes_features_from_the_cache(uniad, losses, tree, tmp_path):
    _, rows, _ = losses("run", "data.cache=disk")
    ckpt = tmp_path / "run" / "checkpoints" / "last.ckpt"
    results = {}
    for mode in ("disk", "off"):
        status, _, err = uniad(
            "evaluate", f"ckpt_path={ckpt}", f"output_dir={tmp_path}/{mode}", f"data.cache={mode}", "save_maps=true"
        )
        assert status == 0, err
        assert "features:" not in err
        maps = [np.load(tmp_path / mode / "maps" / f"{i}.npz") for i in range(10)]
        results[mode] = {name: [m[name] for m in maps] for name in ("map", "mask", "path", "label")}
    assert all(np.array_equal(a, b) for a, b in zip(results["disk"]["mask"], results["off"]["mask"], strict=True))
    assert results["disk"]["path"] == results["off"]["path"]
    for one, other in zip(results["disk"]["map"], results["off"]["map"], strict=True):
        assert np.allclose(one, other, rtol=2e-3)
