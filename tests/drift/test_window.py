"""The counts of a window against NumPy on the last images, for any scores."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from uniad_lightning.drift.window import Window

scores = st.lists(st.tuples(st.floats(-5, 5).map(lambda value: round(value, 1)), st.booleans()), min_size=1)


@given(scores, st.integers(1, 12), st.floats(-5, 5))
def test_counts_are_those_of_the_last_images(images, size, edge):
    window = Window(size)
    for score, unfamiliar in images:
        window.add(score, unfamiliar=unfamiliar)
    last = np.array([score for score, _ in images[-size:]])
    assert len(window) == len(last)
    assert window.above(edge) == (last > edge).sum()
    assert window.unfamiliar == sum(unfamiliar for _, unfamiliar in images[-size:])
    assert window.quantile(0.0) == last.min()
    assert window.quantile(1.0) == last.max()
    assert (last < window.quantile(0.5)).sum() <= len(last) / 2
    assert (last > window.quantile(0.5)).sum() <= len(last) / 2
