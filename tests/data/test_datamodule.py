"""Which image a rank sees in which step, and what a sample holds."""

import numpy as np
import pytest
import torch
from PIL import Image

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.feature_cache.loader import usable_cores
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.data.sampling import AllImages, Draw, EvaluationBatches, TrainBatches, fitting_batch
from uniad_lightning.errors import InputError
from uniad_lightning.randomness import key, permutation, seed_step
from uniad_lightning.results.decisions import ScoredRecord
from uniad_lightning.training.heatmaps import draw_panel

UNCHANGED = Augmentation(flip=0, flip_vertical=0, rotate=0, colour=0, seed=0)


def draws(world, position=0, count=23, size=6, seed=5):
    order = AllImages(categories=["a"] * count, seed=seed)
    return [
        list(
            TrainBatches(order=order, count=count, batch_size=size, rank=r, world_size=world, position=lambda: position)
        )
        for r in range(world)
    ]


def batches(*args, **kwargs):
    return [[[draw.place for draw in batch] for batch in rank] for rank in draws(*args, **kwargs)]


@pytest.mark.parametrize("world", [1, 2, 3, 6])
def test_every_world_size_sees_the_same_global_batches(world):
    expected = permutation(23, seed=5, epoch=0)[:18].view(3, 6).tolist()
    joined = [sum(parts, []) for parts in zip(*batches(world), strict=True)]
    assert joined == expected


@pytest.mark.parametrize("world", [1, 2, 3])
def test_samples_are_numbered_alike_for_every_world_size_and_over_epochs(world):
    first, second = draws(world), draws(world, position=3)
    numbers = [draw.number for parts in zip(*first, strict=True) for part in parts for draw in part]
    numbers += [draw.number for parts in zip(*second, strict=True) for part in parts for draw in part]
    assert numbers == list(range(36))
    assert draws(world, position=4)[0] == second[0][1:]


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
    assert len(drawn) == 3
    for rank in (0, 1):  # what all processes decide together
        seed_step(seed=0, rank=rank, epoch=0, step=1)
        assert torch.rand(()).item() in drawn


def dataset(root, **changes):
    splits = list_mvtec(root)
    settings = {
        "image_size": (40, 24), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "augmentation": UNCHANGED,
    }  # fmt: skip
    return InspectionDataset(records=splits.test, categories=splits.categories, **{**settings, **changes})


def test_a_sample_is_normalised_and_its_mask_belongs_to_it(tree):
    data = dataset(tree, image_size=(80, 72))
    for index, record in enumerate(data.records):
        sample = data[index]
        pixels = sample["image"] * torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1) + torch.tensor([0.5, 0.4, 0.3]).view(
            3, 1, 1
        )
        assert np.allclose(pixels.permute(1, 2, 0).numpy() * 255, np.asarray(Image.open(record.image)), atol=1e-3)
        truth = np.zeros((80, 72), bool)
        for path in record.masks:
            truth |= np.asarray(Image.open(path)) > 0
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


def module(root, **changes):
    settings = {
        "source": list_mvtec, "root": str(root), "categories": None, "normal_classes": None, "limit": None,
        "sampling": "all", "augmentation": UNCHANGED, "image_size": 64, "batch_size": 2, "eval_batch_size": 2,
        "num_workers": 0, "seed": 0, "cache": "off", "cache_dir": "", "mean": (0, 0, 0), "std": (1, 1, 1),
    }  # fmt: skip
    return UnifiedDataModule(**{**settings, **changes})


def test_more_workers_than_cores_are_never_started(tree):
    most = usable_cores()
    assert module(tree, num_workers=most + 5).num_workers == most
    assert module(tree, num_workers=1).num_workers == 1


def test_a_record_may_have_several_masks_or_none(tree):
    hole, scratch = (next(r for r in list_mvtec(tree).test if r.defect == kind) for kind in ("hole", "scratch"))
    both, none = hole._replace(masks=hole.masks + scratch.masks), hole._replace(masks=())
    data = dataset(tree, image_size=(80, 72))
    data.records = [hole, scratch, both, none]
    one, other, union, unknown = (data[i] for i in range(4))
    assert torch.equal(union["mask"], one["mask"] | other["mask"])
    assert union["mask"].sum() > one["mask"].sum()
    assert union["has_mask"]
    assert not unknown["has_mask"]
    assert not unknown["mask"].any()


def test_a_defect_that_is_not_marked_is_drawn_grey(tree):
    hole = next(r for r in list_mvtec(tree).test if r.defect == "hole")
    maps = [torch.zeros(4, 4)] * 2
    images = [ScoredRecord(record, 0.0, None) for record in (hole, hole._replace(masks=()))]
    sheet = np.asarray(draw_panel(images, maps, (200, 120), (0, 0, 1, 1), heading="x"))
    bottom = len(sheet) - 4
    unmarked, marked = (sheet[end - 200 : end, 128:248] for end in (bottom, bottom - 220))
    assert set(np.unique(marked)) == {0, 255}
    assert set(np.unique(unmarked)) == {128}


def test_a_sheet_without_a_mask_has_no_column_for_it(tree):
    hole = next(r for r in list_mvtec(tree).test if r.defect == "hole")
    images = [ScoredRecord(record, 0.0, None) for record in (hole, hole._replace(masks=()))]
    maps = [torch.zeros(4, 4)] * 2
    with_masks, without = (
        draw_panel(shown, maps, (200, 120), (0, 0, 1, 1), heading="x") for shown in (images, [images[1]] * 2)
    )
    assert with_masks.width - without.width == 120 + 4


def test_only_draws_are_augmented_and_by_their_number_alone(tree):
    data = dataset(tree, augmentation=Augmentation(flip=0.5, flip_vertical=0.5, rotate=90, colour=0.3, seed=0))
    plain = data[1]["image"]
    changed = [data[Draw(1, number)]["image"] for number in (0, 1, 2)]
    assert torch.equal(plain, data[1]["image"])
    assert torch.equal(changed[1], data[Draw(1, 1)]["image"])
    assert not torch.equal(changed[0], changed[1])
    assert all(not torch.equal(plain, one) for one in changed)
    assert torch.equal(dataset(tree)[Draw(1, 0)]["image"], plain)


def test_options_that_are_none_are_refused(tree):
    for changes, words in (
        ({"limit": 0}, "data.limit=0"),
        ({"sampling": "balance"}, "data.sampling=balance.*Did you mean 'balanced'"),
        ({"batch_size": "four"}, "data.batch_size=four"),
    ):
        with pytest.raises(InputError, match=words):
            module(tree, **changes)


def test_a_missing_test_split_is_refused(tmp_path, tree):
    (tmp_path / "bottle" / "train").mkdir(parents=True)
    (tmp_path / "bottle" / "train" / "good").symlink_to(tree / "bottle" / "train" / "good")
    with pytest.raises(InputError, match="no test image in bottle"):
        module(tmp_path).setup()


def test_masks_stay_on_the_host_where_they_are_counted(tmp_path):
    data = module(tmp_path)
    batch = {"image": torch.zeros(2, 3, 4, 4), "mask": torch.zeros(2, 4, 4, dtype=torch.bool)}
    moved = data.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert (moved["image"].device.type, moved["mask"].device.type) == ("meta", "cpu")
    assert [*data.transfer_batch_to_device({"image": torch.zeros(1)}, torch.device("meta"), 0)] == ["image"]


def test_a_batch_is_lowered_to_the_images_as_far_as_the_processes_divide_it():
    assert fitting_batch(64, images=100, processes=2) == 64
    assert fitting_batch(64, images=60, processes=8) == 56
    assert fitting_batch(64, images=60, processes=1) == 60
    assert fitting_batch(64, images=None, processes=1) == 64
    with pytest.raises(InputError, match="data.batch_size=10 cannot be divided by the 4 processes"):
        fitting_batch(10, images=100, processes=4)
    with pytest.raises(InputError, match="has 3 train images, fewer than the 4 processes"):
        fitting_batch(8, images=3, processes=4)
