"""Patch-SVDD's networks: sizes of the paper, dense as patch by patch, pairs of patches where they ought to be."""

from collections import Counter

import numpy as np
import pytest
import torch

from uniad_lightning.errors import InputError
from uniad_lightning.models.dense_patches import spread
from uniad_lightning.models.patch_svdd import (
    DIRECTIONS,
    DirectionClassifier,
    HierarchicalEncoder,
    cut,
    neighbors,
    shifted,
)


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_parameters_are_those_of_the_paper():
    encoder = HierarchicalEncoder(dim=64, width=32)
    assert count(encoder.small) == 360_832
    assert count(encoder) == 401_984
    assert count(DirectionClassifier(dim=64)) == 25_864


@pytest.mark.parametrize("strides", [(16, 4), (2, 2), (4, 8)])
def test_embeddings_of_an_image_are_those_of_its_patches_one_by_one(strides):
    encoder = HierarchicalEncoder(dim=5, width=3).eval()
    images = torch.rand(2, 3, 80, 72, generator=seeded())
    with torch.no_grad():
        found = encoder(images, strides)
        for size, stride, embeddings in zip((64, 32), strides, found, strict=True):
            assert embeddings.shape == (2, 5, (80 - size) // stride + 1, (72 - size) // stride + 1)
            for i, j in np.ndindex(*embeddings.shape[2:]):
                patch = images[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
                assert torch.allclose(encoder.embed(patch), embeddings[:, :, i, j], atol=1e-6)


def test_a_large_patch_is_joined_of_what_its_quarters_are():
    encoder = HierarchicalEncoder(dim=5, width=3).eval()
    patch = torch.rand(1, 3, 64, 64, generator=seeded())
    with torch.no_grad():
        quarters = [encoder.embed(patch[:, :, i : i + 32, j : j + 32])[0] for i in (0, 32) for j in (0, 32)]
        weight, bias = encoder.join.weight, encoder.join.bias
        joined = bias + sum(weight[:, :, place // 2, place % 2] @ one for place, one in enumerate(quarters))
        joined = torch.where(joined > 0, joined, 0.1 * joined)
        expected = torch.tanh(encoder.last.weight[:, :, 0, 0] @ joined + encoder.last.bias)
        assert torch.allclose(encoder.embed(patch)[0], expected, atol=1e-6)


@pytest.mark.parametrize("size", [32, 64])
def test_neighbours_lie_in_their_direction_within_the_image(size):
    height, width = 2 * size, 3 * size
    corners, direction = neighbors(torch.rand(4000, 5, generator=seeded()), (height, width), size)
    assert corners.min() == 0
    assert (corners + size <= torch.tensor([height, width])).all()
    assert (corners.amax(dim=(0, 1)) == torch.tensor([height, width]) - size).all()
    seen = Counter()
    for (first, second), way in zip(corners.tolist(), direction.tolist(), strict=True):
        for axis in (0, 1):
            apart = second[axis] - first[axis]
            sign = DIRECTIONS[way][axis]
            assert sign * apart == abs(apart)
            assert (3 * size // 4 <= abs(apart) <= size) if sign else apart == 0
        seen[way] += 1
    assert set(seen) == set(range(8))
    assert min(seen.values()) > 400  # of 500 expected


@pytest.mark.parametrize("size", [32, 64])
def test_patches_that_nearly_overlap_are_never_the_same(size):
    corners = shifted(torch.rand(4000, 3, generator=seeded()), (size + 9, size + 5), size)
    assert corners.min() == 0
    assert (corners + size <= torch.tensor([size + 9, size + 5])).all()
    offsets = Counter(map(tuple, (corners[:, 1] - corners[:, 0]).tolist()))
    most = size // 32
    around = {(i, j) for i in range(-most, most + 1) for j in range(-most, most + 1)} - {(0, 0)}
    assert set(offsets) == around
    assert min(offsets.values()) > 0.6 * 4000 / len(around)


def test_patches_are_cut_where_their_corners_are():
    images = torch.rand(2, 3, 20, 30, generator=seeded())
    corners = torch.tensor([[[0, 0], [3, 7]], [[12, 22], [5, 1]]])
    found = cut(images, corners, 8)
    for image, place in np.ndindex(2, 2):
        top, left = corners[image, place].tolist()
        assert torch.equal(found[image, place], images[image, :, top : top + 8, left : left + 8])


@pytest.mark.parametrize(("size", "stride"), [(32, 4), (8, 8), (6, 4)])
def test_a_pixel_has_the_mean_of_the_patches_that_cover_it(size, stride):
    distances = torch.rand(2, 3, 4, generator=seeded())
    height, width = size + 2 * stride, size + 3 * stride
    total, covering = np.zeros((2, height, width)), np.zeros((height, width))
    for i, j in np.ndindex(3, 4):
        rows, columns = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
        total[:, rows, columns] += distances[:, i, j].numpy()[:, None, None]
        covering[rows, columns] += 1
    assert np.allclose(spread(distances, torch.ones(size, size), stride).numpy(), total / covering, atol=1e-6)


def test_sizes_are_checked():
    with pytest.raises(InputError, match="model.width=0: expected a whole number of at least 1"):
        HierarchicalEncoder(dim=4, width=0)
