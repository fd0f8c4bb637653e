"""The plot of a hyperparameter search."""

from collections.abc import Collection, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uniad_lightning.files.atomic import replacing
from uniad_lightning.results.axes import note_if_equal
from uniad_lightning.results.labels import label

_COLUMNS = 3


class Tried(NamedTuple):
    """A finished trial."""

    number: int
    value: float
    params: dict[str, Any]


def draw_search(trials: Sequence[Tried], best: Tried, *, objective: str, log: Collection[str], path: Path) -> None:
    """Plot the values of trials in their order, and over each parameter, on a logarithmic axis for those in `log`.

    A star marks the best trial.
    """
    names = list(best.params)
    rows = -(-(1 + len(names)) // _COLUMNS)
    figure = Figure(figsize=(4 * _COLUMNS, 3.2 * rows), layout="constrained")
    history, *panels = figure.subplots(rows, _COLUMNS, sharey=True, squeeze=False).flat
    values = [trial.value for trial in trials]
    best_so_far = list(accumulate(values, max if best.value == max(values) else min))
    history.step([trial.number for trial in trials], best_so_far, where="post", color="0.6", label="best so far")
    history.legend(fontsize=8, loc="lower right" if best.value == max(values) else "upper right")
    _scatter(history, [(trial.number, trial.value) for trial in trials], (best.number, best.value), "trial")
    for axes, name in zip(panels, names, strict=False):
        points = [(trial.params[name], trial.value) for trial in trials if name in trial.params]
        _scatter(axes, points, (best.params[name], best.value), name)
        if name in log:
            axes.set_xscale("log")
    note_if_equal(history, values, digits=4)  # the panels share its y axis
    for axes in panels[len(names) :]:
        axes.remove()
    figure.supylabel(objective)
    with replacing(path, path.suffix) as temporary:
        figure.savefig(temporary, dpi=110)


def _scatter(axes: Axes, points: Sequence[tuple[Any, float]], best: tuple[Any, float], name: str) -> None:
    if isinstance(best[0], str):
        points, best = [(label(x), y) for x, y in points], (label(best[0]), best[1])
    axes.scatter([x for x, _ in points], [y for _, y in points], s=18, alpha=0.7)
    axes.scatter([best[0]], [best[1]], s=80, marker="*", color="C3", zorder=3)
    axes.set_xlabel(label(name))
    if all(type(x) is int for x, _ in points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
