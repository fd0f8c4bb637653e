"""The resize of exported graphs against Pillow itself, to the grey level."""

import numpy as np
import pytest
import torch
from PIL import Image

from uniad_lightning.data.images.tiling import Framing, cut
from uniad_lightning.exporting.pillow_resize import resize_parts

BILINEAR = Image.Resampling.BILINEAR


def spans(framing):
    boxes, across = torch.tensor(framing.boxes, dtype=torch.float64), framing.tiles[1]
    return boxes[::across][:, [0, 2]], boxes[:across][:, [1, 3]]


def by_pillow(image, size):
    # Across, then down: Pillow 13 takes tall pictures the other way round, older ones never.
    across = Image.fromarray(np.ascontiguousarray(image)).resize((size[1], image.shape[0]), BILINEAR)
    return np.asarray(across.resize((size[1], size[0]), BILINEAR))


def is_pillows(images, framing, size):
    """Whether every grey level is Pillow's."""
    found = resize_parts(torch.from_numpy(images), *spans(framing), size)
    expected = np.stack([by_pillow(cut(image, box), size) for image in images for box in framing.boxes])
    return found.dtype == torch.float32 and np.array_equal(found.permute(0, 2, 3, 1).numpy(), expected)


WHOLE = Framing(region=None, tiles=1, overlap=0.0, ignore=None)


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        ((1, 1), (64, 64)), ((7, 5), (64, 64)), ((64, 64), (64, 64)), ((448, 448), (224, 224)), ((900, 50), (224, 224)),
        ((50, 900), (224, 224)), ((513, 255), (37, 300)), ((64, 300), (64, 15)), ((2000, 3), (17, 33)),
    ],
)  # fmt: skip
def test_it_is_pillows(picture, size):
    images = np.random.default_rng(0).integers(0, 256, (2, *picture, 3), dtype=np.uint8)
    assert is_pillows(images, WHOLE, size)


def test_black_and_white_stay_within_bytes():
    images = (np.random.default_rng(1).random((1, 130, 70, 3)) > 0.5).astype(np.uint8) * 255
    assert is_pillows(images, WHOLE, (48, 96))
    assert is_pillows(np.full((1, 97, 31, 3), 255, dtype=np.uint8), WHOLE, (48, 96))


def test_parts_are_cut_where_framing_cuts():
    rng = np.random.default_rng(2)
    for region, tiles, overlap in (([0.13, 0.07, 0.91, 0.83], (2, 3), 0.1), (None, (3, 1), 0.3), (None, (2, 2), 0.0)):
        framing = Framing(region=region, tiles=tiles, overlap=overlap, ignore=None)
        for _ in range(12):  # many sizes, so that fractions of them round up, down, and from the middle
            height, width = rng.integers(1, 160, 2)
            assert is_pillows(rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8), framing, (32, 24))


def test_the_largest_picture_has_exact_sums():
    stripe = np.random.default_rng(3).integers(0, 256, (1, 2, 100_000, 3), dtype=np.uint8)
    assert is_pillows(stripe, WHOLE, (4, 256))
