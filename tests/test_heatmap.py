"""Anomaly maps have matplotlib's colours."""

import matplotlib
import numpy as np
import pytest

from uniad_lightning.heatmap import Scale, heat_colours, overlay


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


def test_an_overlay_is_the_photograph_up_to_the_boundary_and_coloured_above():
    image = np.random.default_rng(0).integers(0, 255, (1, 5, 3), dtype=np.uint8)
    scores = np.array([[0.0, 4.9, 5.0, 6.0, 10.0]])
    scale = Scale.of([scores], 5.0)
    assert scale == (0.0, 10.0, 5.0)
    changed = np.abs(overlay(image, scores, scale).astype(int) - image).sum(axis=2)[0]
    assert list(changed[:3]) == [0, 0, 0]
    assert changed[3] > 0
    assert changed[4] > 0


def test_good_and_defective_maps_have_one_scale_with_the_boundary_in_its_middle():
    good, defective = np.full((2, 2), 1.0), np.full((2, 2), 9.0)
    scale = Scale.of([good, defective], 3.0)
    assert scale == (1.0, 5.0, 3.0)
    blue, red = (heat_colours(m, scale.low, scale.high)[0, 0].astype(int) for m in (good, defective))
    assert red[0] > 2 * red[2]
    assert blue[0] < 60
    above = Scale.of([defective], 3.0)  # nothing is below the boundary
    assert above.low < above.boundary < above.high
