"""Which image a rank sees in which step, and what a sample holds."""

import numpy as np
import pytest
import torch
from PIL import Image

from uniad_lightning.data.datamodule import EvaluationBatches, TrainBatches, UnifiedDataModule
from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.mvtec import list_mvtec
from uniad_lightning.errors import InputError
from uniad_lightning.randomness import key, permutation, seed_step


def batches(world, position=0, count=23, size=6, seed=5):
    return [
        list(TrainBatches(count=count, batch_size=size, seed=seed, rank=r, world_size=world, position=lambda: position))
        for r in range(world)
    ]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_every_world_size_sees_the_same_global_batches(world):
    expected = permutation(23, seed=5, epoch=0)[:18].view(3, 6).tolist()
    joined = [sum(parts, []) for parts in zip(*batches(world), strict=True)]
    assert joined == expected


def test_a_resumed_epoch_goes_on_where_it_was_and_epochs_differ():
    whole = batches(2)[1]
    assert batches(2, position=2)[1] == whole[2:]
    assert batches(2, position=3)[1] != whole
    assert batches(2, position=5)[1] == batches(2, position=3)[1][2:]
    assert batches(2, seed=6)[1] != whole


@pytest.mark.parametrize(("count", "world"), [(7, 1), (7, 2), (7, 3), (2, 3), (0, 2)])
def test_evaluation_takes_each_image_once_and_no_rank_is_without_a_batch(count, world):
    parts = [list(EvaluationBatches(count=count, batch_size=2, rank=r, world_size=world)) for r in range(world)]
    assert sorted(i for part in parts for batch in part for i in batch) == list(range(count))
    assert all(len(part) >= 1 for part in parts)
    assert [len(EvaluationBatches(count=count, batch_size=2, rank=r, world_size=world)) for r in range(world)] == [
        len(part) for part in parts
    ]


def test_keys_differ_and_repeat():
    assert key("a", 1) == key("a", 1) != key("a", 2)
    drawn = set()
    for parts in ({"epoch": 0, "step": 0}, {"epoch": 0, "step": 1}, {"epoch": 1, "step": 0}):
        seed_step(seed=0, rank=0, **parts)
        drawn.add(torch.rand(()).item())
    seed_step(seed=0, rank=1, epoch=0, step=0)
    drawn.add(torch.rand(()).item())
    assert len(drawn) == 4
    seed_step(seed=0, rank=0, epoch=0, step=1)
    assert torch.rand(()).item() in drawn


def dataset(root, **changes):
    splits = list_mvtec(root)
    settings = {"image_size": (40, 24), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    return InspectionDataset(records=splits.test, categories=splits.categories, **{**settings, **changes})


def test_a_sample_is_normalised_and_its_mask_belongs_to_it(tree):
    data = dataset(tree, image_size=(80, 72))
    for index, record in enumerate(data.records):
        sample = data[index]
        pixels = sample["image"] * torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1) + torch.tensor([0.5, 0.4, 0.3]).view(
            3, 1, 1
        )
        assert np.allclose(pixels.permute(1, 2, 0).numpy() * 255, np.asarray(Image.open(record.image)), atol=1e-3)
        truth = np.zeros((80, 72), bool) if record.mask is None else np.asarray(Image.open(record.mask)) > 0
        assert np.array_equal(sample["mask"].numpy(), truth)
        assert sample["label"] == int(record.defect != "good")
        assert sample["category"] == ["bottle", "cable"].index(record.category)
        assert sample["index"] == index
        assert sample["has_mask"]


def test_batches_have_the_documented_shapes_also_when_empty(tree):
    data = dataset(tree)
    full, empty = data.collate([data[0], data[3]]), data.collate([])
    assert full["image"].shape == (2, 3, 40, 24)
    for name, value in full.items():
        assert empty[name].shape == (0, *value.shape[1:])
        assert empty[name].dtype == value.dtype


def test_a_missing_test_split_is_refused(tmp_path, tree):
    (tmp_path / "bottle" / "train").mkdir(parents=True)
    (tmp_path / "bottle" / "train" / "good").symlink_to(tree / "bottle" / "train" / "good")
    data = UnifiedDataModule(
        source=list_mvtec, root=str(tmp_path), categories=None, image_size=64, batch_size=2, eval_batch_size=2,
        num_workers=0, seed=0, mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    with pytest.raises(InputError, match="no test image in bottle"):
        data.setup()
