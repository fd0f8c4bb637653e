"""Processes that fill, list and remove the stores of one cache at the same time."""

import os
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from support.children import begin, status_of
from support.feature_stores import disk, features, names
from support.settings import SMALL
from uniad_lightning.data.feature_cache import index as index_module
from uniad_lightning.data.feature_cache.index import Connection
from uniad_lightning.data.feature_cache.room import make_room
from uniad_lightning.data.feature_cache.store import MISSING, DiskStore, StoreError
from uniad_lightning.data.feature_cache.usage import bound, size_of, stores


def _fill(folder, first):
    for i in range(first, first + 40, 4):
        disk(folder).add(names(4, first=i), features(4, seed=i), [b""] * 4)


@pytest.mark.slow
def test_processes_that_fill_one_store_do_not_spoil_it(tmp_path):
    workers = [begin(_fill, tmp_path, first) for first in (0, 20, 40)]  # two overlap
    assert [status_of(worker) for worker in workers] == [0, 0, 0]
    store = disk(tmp_path)
    for first in range(0, 80, 4):
        assert torch.equal(store.features(store.find(names(4, first=first))), features(4, seed=first).half())


def test_what_another_process_keeps_while_it_is_looked_for_is_found(tmp_path, monkeypatch):
    """Its rows replace ours by later slots, which are not to be taken for damaged ones."""
    store, other = disk(tmp_path), disk(tmp_path)
    store.add(names(2), features(2), [b""] * 2)
    monkeypatch.setattr(index_module, "_BUSY_SECONDS", 0.05)

    def keep(statement):
        if statement.startswith("select slot"):
            with suppress(StoreError):  # it has to wait for us
                other.add(names(2), features(2), [b""] * 2)

    class Interrupted(Connection):
        def __enter__(self):
            index = super().__enter__()
            index.set_trace_callback(keep)
            return index

    monkeypatch.setattr(store, "_connected", lambda: Interrupted(store.folder / "index.sqlite"))
    assert (store.find(names(2)) != MISSING).all()


def test_the_size_of_a_store_leaves_out_a_file_that_goes_meanwhile(tmp_path, monkeypatch):
    store = disk(tmp_path)
    store.add(names(1), features(1), [b""])
    size, there = size_of(store.folder), list(store.folder.iterdir())
    monkeypatch.setattr(Path, "iterdir", lambda _: iter([*there, store.folder / "index.sqlite-journal"]))
    assert size_of(store.folder) == size > 0


def _use(folder, seed, end):
    random = np.random.default_rng(seed)
    while time.time() < end:
        store = disk(folder)
        make_room(store, 4, None)
        store.add(names(4), features(4), [b""] * 4)
        slots = store.find(names(4))
        assert torch.equal(store.features(slots), features(4).half())
        del store
        time.sleep(0.03 * random.random())


def _remove(folder, end):
    while time.time() < end:
        stores(folder / "cache")
        bound(folder / "cache", 0)


@pytest.mark.slow
def test_stores_are_opened_and_removed_at_the_same_time(tmp_path):
    end = time.time() + 20
    workers = [begin(_use, tmp_path, seed, end) for seed in range(2)]
    workers += [begin(_remove, tmp_path, end) for _ in range(2)]
    assert [status_of(worker) for worker in workers] == [0] * 4


def test_a_removal_that_was_ended_half_way_is_ended(tmp_path):
    store = disk(tmp_path)
    store.add(names(1), features(1), [b""])
    folder = store.folder
    del store
    os.unlink(folder / "held")
    assert [one.folder for one in bound(tmp_path / "cache", 0)] == [folder]
    assert not folder.exists()


def test_features_that_are_damaged_as_they_are_written_are_not_taken_for_kept(uniad, tree, tmp_path, monkeypatch):
    write = DiskStore._write
    monkeypatch.setattr(DiskStore, "_write", lambda self, slot, feature: write(self, slot, np.zeros_like(feature)))
    line = ["train", *SMALL, f"data.root={tree}", f"data.cache_dir={tmp_path}/cache"]
    status, _, err = uniad(*line, f"output_dir={tmp_path}/disk", "data.cache=disk")
    assert status == 2
    assert (
        err.strip()
        .splitlines()[-1]
        .endswith("images were damaged as they were written; choose another folder, or data.cache=off")
    )
