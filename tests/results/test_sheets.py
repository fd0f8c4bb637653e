"""Sheets of images: what fits above them, and what their colours say."""

import numpy as np
import pytest
from PIL import Image, ImageFont

from uniad_lightning.results.sheets import _FONT, draw_sheet, fitting


@pytest.mark.parametrize("name", ["y" * 255, "screw", "工具" * 60, "a\nb" * 50])
def test_a_title_fits_and_keeps_its_ends(name):
    font = ImageFont.truetype(str(_FONT), 11)
    shown = fitting(f"{name}/scratch/003.png", 180, font)
    assert font.getlength(shown) <= 180
    assert shown.startswith(name[0])
    assert shown.endswith("003.png")
    assert "\n" not in shown


@pytest.mark.parametrize("side", [8, 64, 200])
def test_images_keep_their_pixels_and_small_ones_are_enlarged(side):
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    sheet = np.asarray(draw_sheet({"a": [pixels], "b": [pixels]}, ["x"]))
    times = -(-120 // side)
    cell = sheet[-4 - times * side : -4, 4 : 4 + times * side]
    assert np.array_equal(cell, np.asarray(Image.fromarray(pixels).resize(cell.shape[:2], Image.Resampling.NEAREST)))
