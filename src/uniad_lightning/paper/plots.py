"""Plots of a table: bars, or lines over a number that varies, beside the paper's numbers."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uniad_lightning.files.atomic import replacing
from uniad_lightning.paper.comparison import NONE, Cell, Comparison
from uniad_lightning.results.labels import label

CHANCE = 50  # percent: the AUROC of random scores
OURS, PAPER = "tab:blue", "tab:orange"
CURVES = {"loss": "tab:blue", "localization": "tab:red", "detection": "tab:green"}  # as in Figs. 2 and 4


def draw_bars(path: Path, comparison: Comparison) -> None:
    """A panel for each group: a bar from chance for each line, its deviation over seeds, and the paper's number."""
    names = [label(", ".join(part for part in line.labels if part != NONE)) for line in comparison.lines]
    figure, panels = _panels(comparison.groups, height=1.3 + 0.3 * len(names))
    for group, axes in enumerate(panels):
        for place, line in enumerate(comparison.lines):
            _draw_bar(axes, place, line.cells[group])
        axes.set_yticks(range(len(names)), names if group == 0 else [""] * len(names))
        axes.invert_yaxis()
        axes.axvline(CHANCE, color="black", linewidth=0.8)
        axes.set(xlabel="AUROC, % (chance: 50)", xlim=(min(CHANCE, axes.get_xlim()[0]), 101))
        axes.grid(axis="x", alpha=0.3)
    _save(figure, path)


def _draw_bar(axes: Axes, place: int, cell: Cell) -> None:
    if cell.ours is not None:
        axes.barh(place, cell.ours.mean - CHANCE, left=CHANCE, height=0.6, color=OURS, alpha=0.8, label="ours")
        if cell.ours.deviation is not None:
            axes.errorbar(cell.ours.mean, place, xerr=cell.ours.deviation, color="black", capsize=3)
    if cell.paper is not None:
        axes.plot(cell.paper, place, "d", color=PAPER, markeredgecolor="black", label="paper")


def draw_lines(path: Path, comparison: Comparison) -> None:
    """A panel for each group: ours with its deviation over seeds and the paper's, over the number that varies."""
    figure, panels = _panels(comparison.groups, height=3.6)
    for group, axes in enumerate(panels):
        cells = {float(line.labels[0]): line.cells[group] for line in comparison.lines}
        ours = {x: cell.ours for x, cell in cells.items() if cell.ours is not None}
        axes.errorbar(
            list(ours), [number.mean for number in ours.values()], [number.deviation or 0 for number in ours.values()],
            marker="o", color=OURS, capsize=4, label="ours",
        )  # fmt: skip
        paper = {x: cell.paper for x, cell in cells.items() if cell.paper is not None}
        axes.plot(list(paper), list(paper.values()), "d--", color=PAPER, markeredgecolor="black", label="paper")
        axes.set_xticks(list(cells), [label(line.labels[0]) for line in comparison.lines])
        axes.set(xlabel=label(comparison.heads[0]), ylabel="AUROC, %")
        axes.grid(alpha=0.3)
    _save(figure, path)


def draw_curves(path: Path, comparison: Comparison) -> None:
    """A panel for each line: loss and both AUROCs over the epochs, a curve for each seed, coloured as in Fig. 2."""
    names = list(comparison.curves)
    drawn = [curve for curves in comparison.curves.values() for curve in curves]
    loss = max((value for curve in drawn for value in curve.loss.values()), default=1)
    lowest = min([CHANCE, *(v for curve in drawn for v in (*curve.localization.values(), *curve.detection.values()))])
    figure, panels = _panels(names, height=3.6)
    for axes, name in zip(panels, names, strict=True):
        right = axes.twinx()
        for curve in comparison.curves[name]:
            for head, numbers in curve._asdict().items():
                side = axes if head == "loss" else right
                side.plot(list(numbers), list(numbers.values()), ".-", color=CURVES[head], alpha=0.8, label=head)
        axes.set(xlabel="epoch", ylim=(0, 1.05 * loss), ylabel="training loss" if name == names[0] else "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.set(ylim=(lowest - 1, 100), ylabel="AUROC, %" if name == names[-1] else "")
    _save(figure, path)


def _panels(titles: Sequence[str], *, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(1.5 + 3.7 * len(titles), height), layout="constrained")
    panels = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(label(title))
    return figure, panels


def _save(figure: Figure, path: Path) -> None:
    """Write the file, with one legend of all panels that has each name once."""
    labelled = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in figure.axes]
    named = {label: handle for pairs in labelled for handle, label in pairs}
    figure.legend(named.values(), named, loc="outside upper center", ncols=len(named), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, path.suffix) as temporary:
        figure.savefig(temporary, dpi=120)
