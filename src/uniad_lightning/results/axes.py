"""Axes of a plot that can be read whatever the values."""

from collections.abc import Sequence

from matplotlib.axes import Axes

_MOST_TICKS = 10


def note_if_equal(axes: Axes, values: Sequence[float], *, digits: int) -> None:
    """Plain numbers beside the y axis; where all `values` are the same to `digits` decimals, say so and do not zoom in.

    Matplotlib would stretch differences of rounding over the whole height.
    """
    axes.ticklabel_format(axis="y", useOffset=False)
    if len(values) > 1 and len({f"{value:.{digits}f}" for value in values}) == 1:
        around = 10.0 ** (2 - digits)
        drawn = axes.dataLim  # with the bars of deviations
        axes.set_ylim(min(drawn.ymin, values[0] - around), max(drawn.ymax, values[0] + around))
        axes.text(0.5, 0.95, f"all values are {values[0]:.{digits}f}", transform=axes.transAxes, ha="center", va="top")


def tick_values(axes: Axes, values: Sequence[float]) -> None:
    """Ticks of the x axis at the `values` that were tried, where these are few."""
    if len(set(values)) <= _MOST_TICKS:
        ticks = sorted(set(values))
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.set_xticks([], minor=True)
