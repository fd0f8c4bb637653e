"""Upsampling and image scores against independent rewrites."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter

from uniad_lightning.errors import InputError
from uniad_lightning.scoring import ImageScore, upsample


def test_upsampling_aligns_corners():
    maps = torch.rand(2, 3, 5)
    big = upsample(maps, (9, 17))
    assert big.shape == (2, 9, 17)
    assert torch.equal(big[:, 0, 0], maps[:, 0, 0])
    assert torch.equal(big[:, -1, -1], maps[:, -1, -1])
    assert torch.allclose(big[:, 4, 8], maps[:, 1, 2])
    assert upsample(maps, (3, 5)) is maps


def test_max_is_the_largest_window_mean():
    maps = torch.rand(3, 20, 31)
    score = ImageScore(kind="max", window=5)(maps)
    for one, value in zip(maps.numpy(), score.tolist(), strict=True):
        means = uniform_filter(one.astype(np.float64), 5)[2:-2, 2:-2]
        assert value == pytest.approx(means.max(), abs=1e-6)


def test_mean_and_std():
    maps = torch.rand(3, 20, 31)
    assert torch.allclose(ImageScore(kind="mean", window=1)(maps), maps.flatten(1).mean(1))
    assert np.allclose(ImageScore(kind="std", window=1)(maps).numpy(), maps.flatten(1).numpy().std(1), atol=1e-6)


def test_too_small_images_and_unknown_kinds_are_refused():
    with pytest.raises(InputError, match=r"data.image_size=\[15, 40\].*score.window=16"):
        ImageScore(kind="max", window=16).check((15, 40))
    ImageScore(kind="mean", window=16).check((15, 40))
    with pytest.raises(InputError, match="Did you mean 'mean'"):
        ImageScore(kind="meen", window=16)
    with pytest.raises(InputError, match="score.window=0"):
        ImageScore(kind="max", window=0)
