"""Anomaly maps have matplotlib's colours."""

import matplotlib
import numpy as np
import pytest

from uniad_lightning.heatmap import heat_colours


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-3.0, 2.0), (0.25, 0.25 + 1e-6)])
def test_the_range_runs_over_turbo(low, high):
    scores = np.linspace(low, high, 256).reshape(16, 16)
    expected = matplotlib.colormaps["turbo"](np.arange(256))[:, :3].reshape(16, 16, 3) * 255
    steps = np.abs(heat_colours(scores, low, high).astype(int) - expected.astype(int)).max()
    assert steps <= 10  # a rounded score may fall into the level below
    ends = ([0, 15], [0, 15])
    assert np.array_equal(heat_colours(scores[ends], low, high), expected[ends].astype(np.uint8))


def test_what_is_outside_of_the_range_has_the_colour_of_its_end():
    inside = heat_colours(np.array([1.0, 3.0], dtype=np.float32), 1.0, 3.0)
    assert np.array_equal(heat_colours(np.array([-50.0, 900.0], dtype=np.float32), 1.0, 3.0), inside)
    assert inside.dtype == np.uint8


def test_a_constant_map_has_the_lowest_colour():
    colours = heat_colours(np.full((2, 3), 7.0, dtype=np.float32), 7.0, 7.0)
    assert colours.shape == (2, 3, 3)
    assert np.unique(colours.reshape(-1, 3), axis=0).shape == (1, 3)
    assert colours[0, 0, 2] > colours[0, 0, 0]  # blue
