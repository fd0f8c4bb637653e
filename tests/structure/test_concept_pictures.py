"""The pictures of docs/concepts.md are those that its script draws."""

import runpy

import numpy as np
import pytest
from PIL import Image

from support.paths import ROOT

IMAGES = ROOT / "docs" / "images"
DRAWN = {"network": "draw_network", "neighbor_mask": "draw_mask", "jitter": "draw_jitter"}


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_what_the_script_draws(tmp_path, name):
    functions = runpy.run_path(str(ROOT / "scripts" / "draw_concepts.py"))
    functions[DRAWN[name]](tmp_path / f"{name}.png")
    drawn, kept = (
        np.asarray(Image.open(folder / f"{name}.png").convert("L"), dtype=float) for folder in (tmp_path, IMAGES)
    )
    assert drawn.shape == kept.shape
    assert np.abs(drawn - kept).mean() < 8  # of 255: another release of Matplotlib moves letters
