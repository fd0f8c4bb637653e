"""Masks as bits: the same mask again, of any size."""

import numpy as np
import pytest

from uniad_lightning.files.mask_bits import compress_mask, decompress_mask, unpack_mask


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (7, 9), (16, 8), (224, 224)])
def test_a_mask_comes_back(size):
    mask = np.random.default_rng(0).random(size) < 0.3
    for kept in (mask, np.zeros(size, bool), np.ones(size, bool), mask.T.copy().T):
        again = decompress_mask(compress_mask(kept), size)
        assert again.dtype == bool
        assert np.array_equal(again, kept)
        assert np.array_equal(unpack_mask(np.packbits(kept), size), kept)


def test_a_mask_of_a_defect_is_small():
    mask = np.zeros((1024, 1024), dtype=bool)
    mask[300:400, 500:600] = True
    assert len(compress_mask(mask)) < 1500
