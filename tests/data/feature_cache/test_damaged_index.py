"""A damaged index never gives the mask or the features of another image: what is damaged is computed again."""

import shutil
import sqlite3

import numpy as np
import pytest
import torch

from support.feature_stores import disk, features, names
from support.pictures import damaged
from uniad_lightning.data.feature_cache.encoding import pack_mask
from uniad_lightning.data.feature_cache.store import MISSING, StoreError

COUNT = 40
MASKS = [pack_mask(np.random.default_rng(i).random((40, 40)) < i / 80) for i in range(COUNT)]


@pytest.fixture
def filled(tmp_path):
    disk(tmp_path).add(names(COUNT), features(COUNT), MASKS)
    return tmp_path


def index_of(folder):
    (path,) = (folder / "cache").glob("*/index.sqlite")
    return path


@pytest.mark.slow
def test_a_damaged_index_gives_what_was_kept_or_nothing(filled, tmp_path_factory):
    sound, kept = index_of(filled), features(COUNT).half()
    content, ends = sound.read_bytes(), {"whole": 0, "some missing": 0, "all missing": 0, "refused": 0}
    for number, changed in enumerate(damaged(content, 350)):
        again = tmp_path_factory.mktemp("again")
        shutil.copytree(filled / "cache", again / "cache")
        index_of(again).write_bytes(changed)
        try:
            store = disk(again)
            slots = store.find(names(COUNT))
            there = np.flatnonzero(slots != MISSING)
            assert torch.equal(store.features(slots[there]), kept[there]), number
            for i in there:
                assert store.mask(names(COUNT)[i]) == MASKS[i], number
        except StoreError:
            ends["refused"] += 1
        else:
            ends["whole" if len(there) == COUNT else "some missing" if len(there) else "all missing"] += 1
        shutil.rmtree(again)
    assert ends["all missing"] > 50, ends  # the damage was seen
    assert ends["refused"] < 20, ends  # and mended


@pytest.mark.parametrize(
    "statement",
    [
        "update entry set mask = (select mask from entry where slot = 7) where slot = 5",
        "update entry set mask = x'00' where slot = 5",
        "update entry set mask = null where slot = 5",
        "update entry set mask = 'text' where slot = 5",
        "update entry set slot = 7 where slot = 5",
        "update entry set slot = -1 where slot = 5",
        "update entry set slot = 4611686018427387904 where slot = 5",
        "update entry set slot = 'five' where slot = 5",
        "update entry set checksum = 1.5 where slot = 5",
    ],
)
def test_a_changed_row_is_missing_and_nothing_else(filled, statement):
    with sqlite3.connect(index_of(filled)) as index:
        index.execute(statement)
    store = disk(filled)
    assert np.flatnonzero(store.find(names(COUNT)) == MISSING).tolist() == [5]
    assert len(list(store.folder.glob("features-*.bin"))) == 1
    store.add(names(1, first=5), features(COUNT)[5:6], [MASKS[5]])
    assert store.mask(names(1, first=5)[0]) == MASKS[5]
    assert (store.find(names(COUNT)) != MISSING).all()


@pytest.mark.parametrize(
    "statement", ["update slots set next = 0", "update slots set next = 'x'", "delete from slots", "drop table entry",
                  "alter table entry rename column mask to other", "insert into slots values (3)"],
)  # fmt: skip
def test_no_slot_is_given_twice(filled, statement):
    with sqlite3.connect(index_of(filled)) as index:
        index.execute(statement)
    store = disk(filled)
    store.add([b"new"], features(1, seed=9), [b""])
    slots = store.find([*names(COUNT), b"new"])
    assert slots[-1] != MISSING
    there = np.flatnonzero(slots[:-1] != MISSING)
    assert torch.equal(store.features(slots[there]), features(COUNT).half()[there])
