"""A store of features on disk, with features and names of images to fill it with."""

import torch

from uniad_lightning.data.feature_cache.store import DiskStore

SHAPE = (3, 2, 4)  # C, h, w


def names(count, first=0):
    return [f"image {i}".encode() for i in range(first, first + count)]


def features(count, seed=0):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


def disk(tmp_path, **about):
    return DiskStore(cache=tmp_path / "cache", about={"backbone": "x", **about}, shape=SHAPE)
