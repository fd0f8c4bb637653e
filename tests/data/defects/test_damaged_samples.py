"""Where a training sample gets its synthetic defects: after augmentation, from its own seed, and never in a test."""

import numpy as np
import pytest
import torch

from support.trees import mvtec_tree
from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.defects.base import damaged
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.sampling import Draw


class Spots:
    """A white pixel in the first version, nothing in the second."""

    views = 2

    def __call__(self, image, rng):
        mask = np.zeros(image.shape[:2], dtype=bool)
        mask[rng.integers(image.shape[0]), rng.integers(image.shape[1])] = True
        return [(np.where(mask[..., None], 255, image).astype(np.uint8), mask), (image, np.zeros_like(mask))]


@pytest.fixture
def dataset(tmp_path):
    def made(flip=0.0, seed=0):
        splits = list_mvtec(mvtec_tree(tmp_path / "data"), categories=None)
        return InspectionDataset(
            records=splits.train, categories=splits.categories, image_size=(32, 32), mean=(0.1, 0.2, 0.3),
            std=(0.5, 0.4, 0.3), defects=Spots(),
            augmentation=Augmentation(flip=flip, flip_vertical=0, rotate=0, colour=0, seed=seed),
        )  # fmt: skip

    return made


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_a_training_sample_has_versions_of_its_augmented_image(dataset, flip):
    samples = dataset(flip=flip)
    batch = samples.collate([samples[Draw(0, 5)], samples[Draw(1, 6)]])
    assert batch["damaged"].shape == (2, 2, 3, 32, 32)
    assert batch["damage"].shape == (2, 2, 32, 32)
    assert batch["damage"].sum(dim=(2, 3)).tolist() == [[1, 0], [1, 0]]
    assert torch.equal(batch["damaged"][:, 1], batch["image"])
    spot = batch["damage"][:, 0]
    white = (1 - torch.tensor([0.1, 0.2, 0.3])) / torch.tensor([0.5, 0.4, 0.3])
    first = batch["damaged"][:, 0].movedim(1, 3)
    assert torch.allclose(first[spot], white.expand(2, 3))
    assert torch.equal(first[~spot], batch["image"].movedim(1, 3)[~spot])


def test_the_same_sample_has_the_same_defects_and_another_one_others(dataset):
    def spot(seed, number):
        return dataset(seed=seed)[Draw(0, number)]["damage"]

    assert torch.equal(spot(0, 5), spot(0, 5))
    assert not torch.equal(spot(0, 5), spot(0, 6))
    assert not torch.equal(spot(0, 5), spot(1, 5))
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    assert np.array_equal(damaged(Spots(), image, seed=0, number=5)[0][1], spot(0, 5)[0].numpy())


def test_a_test_sample_has_none(dataset):
    assert "damaged" not in dataset()[0]
