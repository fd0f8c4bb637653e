"""The picture of synthetic defects: pixels as a training gets them, beside their masks."""

import numpy as np
from PIL import Image

from support.trees import mvtec_tree
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.augmentation import Augmentation
from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.layouts.mvtec import list_mvtec
from uniad_lightning.results.run_folder import DEFECTS
from uniad_lightning.training.defects_picture import draw_defects


class RightHalf:
    """The right half is red."""

    views = 1

    def __call__(self, image, rng):
        mask = np.zeros(image.shape[:2], dtype=bool)
        mask[:, image.shape[1] // 2 :] = True
        return [(np.where(mask[..., None], (255, 0, 0), image).astype(np.uint8), mask)]


def data_of(root, defects):
    data = UnifiedDataModule(
        source=list_mvtec, root=root, categories=None, normal_classes=None, limit=None, sampling="all",
        augmentation=Augmentation(flip=0, flip_vertical=0, rotate=0, colour=0, seed=0), image_size=128, batch_size=2,
        eval_batch_size=2, num_workers=0, seed=0, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), cache="off",
        cache_dir=str(root), defects=defects,
    )  # fmt: skip
    data.setup()
    return data


def test_it_shows_image_defect_and_mask(tmp_path):
    root = mvtec_tree(tmp_path / "data", categories=["bottle"], size=(128, 128))
    draw_defects(data_of(root, RightHalf()), tmp_path)
    sheet = np.asarray(Image.open(tmp_path / DEFECTS))
    first = read_image(sorted((root / "bottle/train/good").iterdir())[0])
    rows, columns = np.nonzero((sheet == (255, 0, 0)).all(axis=2))
    top, left = rows.min(), columns.min() - 64
    assert columns.max() - columns.min() == 63
    assert np.array_equal(sheet[top : top + 128, left : left + 64], first[:, :64])
    assert np.array_equal(sheet[top : top + 128, left - 132 : left - 4], first)  # beside it, with a gap
    mask = sheet[top : top + 128, left + 132 : left + 260]
    assert (mask[:, :64] == 0).all()
    assert (mask[:, 64:] == 255).all()


def test_without_synthetic_defects_there_is_none(tmp_path):
    draw_defects(data_of(mvtec_tree(tmp_path / "data"), None), tmp_path)
    assert not (tmp_path / DEFECTS).exists()


class Reds:
    """Half of the images become one of 200 reds, the others are left good."""

    views = 1

    def __call__(self, image, rng):
        red, left = rng.integers(20, 220), rng.random() < 0.5
        return [(image if left else np.full_like(image, (red, 0, 0)), np.full(image.shape[:2], not left))]


def test_every_row_shows_a_draw_of_its_own(tmp_path):
    root = mvtec_tree(tmp_path / "data", categories=["bottle", "cable"], size=(128, 128))
    data = data_of(root, Reds())
    rows = min(6, len(data.splits.train))
    draw_defects(data, tmp_path)
    sheet = np.asarray(Image.open(tmp_path / DEFECTS)).reshape(-1, 3)
    reds = np.bincount(sheet[(sheet[:, 0] > 0) & (sheet[:, 1:] == 0).all(axis=1)][:, 0], minlength=256)
    assert rows > 3
    assert np.count_nonzero(reds == 128 * 128) == rows
