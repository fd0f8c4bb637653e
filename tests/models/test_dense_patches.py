"""Patches all over an image, and their scores spread over it, as plain loops have them."""

import numpy as np
import pytest
import torch

from uniad_lightning.errors import InputError
from uniad_lightning.models.dense_patches import DensePatches


def test_rows_are_the_squares_of_the_image():
    image = torch.arange(2 * 3 * 20 * 28).view(2, 3, 20, 28).float()
    rows = [*DensePatches(size=8, stride=4).rows(image)]
    assert [row.shape for row in rows] == [(2, 6, 3, 8, 8)] * 4
    for i, j in np.ndindex(4, 6):
        assert torch.equal(rows[i][:, j], image[:, :, 4 * i : 4 * i + 8, 4 * j : 4 * j + 8])
    assert len([*DensePatches(size=8, stride=4).rows(image, 6)]) == 3


def test_a_pixel_has_the_weighted_mean_of_the_patches_that_cover_it():
    patches, generator = DensePatches(size=6, stride=2), torch.Generator().manual_seed(0)
    scores = torch.rand(2, 5, 4, generator=generator, dtype=torch.float64)
    found = patches.spread(scores)
    assert found.shape == (2, 14, 12)
    for b, y, x in np.ndindex(2, 14, 12):
        total = weight = 0.0
        for i, j in np.ndindex(5, 4):
            dy, dx = y - (2 * i + 2.5), x - (2 * j + 2.5)  # from the middle of the patch
            if abs(dy) < 3 and abs(dx) < 3:
                share = np.exp(-(dy**2 + dx**2) / (2 * 1.5**2))
                total, weight = total + share * float(scores[b, i, j]), weight + share
        assert float(found[b, y, x]) == pytest.approx(total / weight, rel=1e-6)


def test_spreading_keeps_what_is_the_same_everywhere_and_where_a_peak_is():
    patches = DensePatches(size=16, stride=4)
    assert torch.allclose(patches.spread(torch.full((1, 9, 9), 3.0)), torch.full((1, 48, 48), 3.0))
    scores = torch.zeros(1, 9, 9)
    scores[0, 2, 6] = 1
    found = patches.spread(scores)[0]
    peak = (found == found.max()).nonzero().float().mean(dim=0).tolist()
    assert peak == pytest.approx([4 * 2 + 7.5, 4 * 6 + 7.5], abs=1)


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (65, 1, r"model.patch=65: exceeds data.image_size=\[64, 72\]"),
        (32, 6, "model.stride=6: patches of 32 pixels do not cover"),
        (8, 16, "model.stride=16: patches of 8 pixels do not cover"),
    ],
)
def test_what_does_not_fit_is_named(size, stride, message):
    DensePatches(size=32, stride=8).check((64, 72))
    with pytest.raises(InputError, match=message):
        DensePatches(size=size, stride=stride).check((64, 72))
