"""Patches and scars: pixels of the image itself, of the paper's sizes, and nothing changes outside of the mask."""

import numpy as np
import pytest
from scipy import ndimage

from uniad_lightning.data.defects.cutpaste import CutPaste
from uniad_lightning.errors import InputError


def picture(seed, size=(256, 256)):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def made(image, seed, colour=0.0):
    return CutPaste(colour=colour)(image, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [(256, 256), (64, 96), (9, 5), (1, 1)])
@pytest.mark.parametrize("seed", range(10))
def test_outside_of_the_mask_nothing_changes_and_the_mask_is_never_empty(size, seed):
    image = picture(seed, size)
    untouched = image.copy()
    versions = made(image, seed, colour=0.1)
    assert len(versions) == CutPaste(colour=0.1).views == 2
    for damaged, mask in versions:
        assert (damaged.shape, damaged.dtype, mask.shape, mask.dtype) == (image.shape, np.uint8, size, bool)
        assert mask.any()
        assert np.array_equal(damaged[~mask], image[~mask])
    assert np.array_equal(image, untouched)  # others use it as well


def test_a_patch_is_a_rectangle_of_the_image_of_the_papers_size():
    areas, aspects = [], []
    for seed in range(300):
        image = picture(seed)
        (damaged, mask), _ = made(image, seed)
        ((rows, columns),) = ndimage.find_objects(mask.astype(int))
        assert mask[rows, columns].all()
        height, width = rows.stop - rows.start, columns.stop - columns.start
        areas.append(height * width / mask.size)
        aspects.append(height / width)
        if seed < 5:  # where it was cut from: the only place of the noise that is like it
            top, left = np.nonzero((image == damaged[rows.start, columns.start]).all(axis=2))
            found = [(y, x) for y, x in zip(top, left, strict=True) if y + height <= 256 and x + width <= 256]
            assert any(np.array_equal(image[y : y + height, x : x + width], damaged[rows, columns]) for y, x in found)
    assert 0.019 < min(areas) < 0.03
    assert 0.14 < max(areas) < 0.152
    assert np.mean(areas) == pytest.approx((0.02 + 0.15) / 2, abs=0.01)
    assert 0.29 < min(aspects) < 0.4
    assert 2.5 < max(aspects) < 3.45
    assert 100 < sum(aspect > 1 for aspect in aspects) < 200


def test_a_scar_is_thin_turned_and_of_colours_of_the_image():
    longest, thinnest, turned = 0.0, 99.0, 0
    for seed in range(200):
        image = picture(seed)
        _, (damaged, mask) = made(image, seed)
        numbers = [1, 256, 65536]  # of red, green and blue, so that each colour is one number
        assert {*(damaged[mask] @ numbers).tolist()} <= {*(image @ numbers).ravel().tolist()}
        y, x = np.nonzero(mask)
        assert 2 * 10 * 0.5 < len(y) < 16 * 25 * 1.2
        sides = np.sqrt(12 * np.linalg.eigvalsh(np.cov(np.stack([y, x])))).clip(0)  # of a rectangle with this spread
        longest, thinnest = max(longest, sides[1]), min(thinnest, sides[0])
        ((rows, columns),) = ndimage.find_objects(mask.astype(int))
        turned += not mask[rows, columns].all()
    assert 22 < longest < 28
    assert thinnest < 3.5
    assert turned > 150


def test_scars_grow_with_the_image():
    def mean(side):
        return np.mean([made(picture(seed, (side, side)), seed)[1][1].sum() for seed in range(60)])

    assert mean(512) / mean(256) == pytest.approx(4, rel=0.15)


def test_colours_of_what_is_pasted_change_by_as_much_as_asked():
    grey = np.full((64, 64, 3), 100, dtype=np.uint8)
    pasted = [version[mask] for seed in range(100) for version, mask in made(grey, seed, colour=0.1)]
    values = np.array([pixels.mean() for pixels in pasted])
    assert all((pixels == pixels[0]).all() for pixels in pasted)
    assert 90 <= values.min() < 93
    assert 107 < values.max() <= 110
    assert all((version == 100).all() for seed in range(10) for version, _ in made(grey, seed))


def test_the_same_generator_makes_the_same_defects():
    image = picture(0)
    for (one, _), (other, _), (third, _) in zip(
        made(image, 3, 0.1), made(image, 3, 0.1), made(image, 4, 0.1), strict=True
    ):
        assert np.array_equal(one, other)
        assert not np.array_equal(one, third)


@pytest.mark.parametrize("colour", [-0.1, 1.5])
def test_a_change_of_colour_out_of_range_is_refused(colour):
    with pytest.raises(InputError, match=f"data.defects.colour={colour}: expected a number from 0 to 1"):
        CutPaste(colour=colour)
