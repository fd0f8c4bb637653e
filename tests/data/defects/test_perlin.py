"""Defects of Perlin noise: outside of the mask nothing changes, within it is the mixture of the paper."""

import numpy as np
import pytest
from PIL import Image

from uniad_lightning.data.defects.perlin import PerlinDefects, blots, perlin_noise
from uniad_lightning.data.defects.textures import procedural_texture

GREY = np.full((48, 64, 3), 100, dtype=np.uint8)


def made(image=GREY, *, seed, textures=None, opacity=(0.2, 1.0), share_good=0.0):
    defects = PerlinDefects(textures=textures, opacity=list(opacity), share_good=share_good)
    ((damaged, mask),) = defects(image, np.random.default_rng(seed))
    return damaged, mask


@pytest.mark.parametrize("seed", range(20))
def test_outside_of_the_mask_nothing_changes(seed):
    image = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    damaged, mask = made(image, seed=seed)
    assert damaged.shape == image.shape
    assert damaged.dtype == np.uint8
    assert mask.shape == image.shape[:2]
    assert mask.any()
    assert np.array_equal(damaged[~mask], image[~mask])


def test_as_many_images_as_asked_for_are_left_good():
    masks = [made(seed=seed, share_good=0.5) for seed in range(300)]
    good = [np.array_equal(damaged, GREY) for damaged, mask in masks if not mask.any()]
    assert all(good)
    assert 120 < len(good) < 180


def test_the_mixture_is_that_of_texture_and_image(tmp_path):
    Image.new("RGB", (30, 30), (10, 200, 60)).save(tmp_path / "one.png")
    for seed in range(10):
        opaque, mask = made(seed=seed, textures=str(tmp_path), opacity=(1.0, 1.0))
        colour = opaque[mask][0].astype(float)
        assert (opaque[mask] == colour).all()
        thin, same = made(seed=seed, textures=str(tmp_path), opacity=(0.25, 0.25))
        assert np.array_equal(mask, same)
        assert np.abs(thin[mask] - (0.75 * 100 + 0.25 * colour)).max() <= 1


def test_noise_is_smooth_and_zero_at_the_corners_of_cells():
    noise = perlin_noise((64, 96), (4, 8), np.random.default_rng(0))
    assert noise.shape == (64, 96)
    assert np.allclose(noise[::16, ::12], 0, atol=1e-12)
    assert np.abs(noise).max() < 1.5
    assert noise.std() > 0.1
    assert max(np.abs(np.diff(noise, axis=axis)).max() for axis in (0, 1)) < 0.35
    coarse = perlin_noise((64, 96), (1, 1), np.random.default_rng(0))
    assert np.abs(np.diff(coarse, axis=1)).max() < 0.05


def test_blots_have_the_size_of_the_image_whatever_their_turn():
    assert {blots((40, 24), np.random.default_rng(seed)).shape for seed in range(20)} == {(40, 24)}


def test_textures_differ_in_kind_and_stay_within_the_range():
    drawn = [procedural_texture((32, 48), np.random.default_rng(seed)) for seed in range(30)]
    assert all(texture.shape == (32, 48, 3) for texture in drawn)
    assert all(texture.min() >= 0 and texture.max() <= 255 for texture in drawn)
    assert all(texture.std() > 0 for texture in drawn)


def test_noise_is_that_of_a_rewrite():
    height, width, rows, columns = 10, 9, 2, 3
    found = perlin_noise((height, width), (rows, columns), np.random.default_rng(4))
    angles = np.random.default_rng(4).uniform(0, 2 * np.pi, (rows + 1, columns + 1))
    for i, j in np.ndindex(height, width):
        y, x = i * rows / height, j * columns / width
        total = 0.0
        for row in (int(y), int(y) + 1):
            for column in (int(x), int(x) + 1):
                down, right = y - row, x - column
                share = 1.0  # Perlin 2002: 1 - (6 t^5 - 15 t^4 + 10 t^3) of each distance
                for t in (abs(down), abs(right)):
                    share *= 1 - (6 * t**5 - 15 * t**4 + 10 * t**3)
                total += share * (np.cos(angles[row, column]) * down + np.sin(angles[row, column]) * right)
        assert found[i, j] == pytest.approx(np.sqrt(2) * total, abs=1e-12)
