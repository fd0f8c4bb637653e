"""Our numbers beside the paper's in percent, as values and as the texts of a table."""

import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

NONE = "-"  # the label of a part that a line lacks
OURS = ("ours", "n")
PAPERS = ("paper", "difference")


class Number(NamedTuple):
    """A number of ours over several seeds.

    Attributes:
        mean: over the seeds.
        deviation: sample standard deviation, None of a single seed.
        seeds: how many there are.
    """

    mean: float
    deviation: float | None
    seeds: int


class Cell(NamedTuple):
    """One number of ours and the paper's; None where there is none."""

    ours: Number | None
    paper: float | None = None
    paper_deviation: float | None = None

    @property
    def difference(self) -> float | None:
        """Ours minus the paper's."""
        return None if self.ours is None or self.paper is None else self.ours.mean - self.paper

    def texts(self) -> dict[str, str]:
        """The texts of a table, by column."""
        ours = (
            ("", "") if self.ours is None else (_spread(self.ours.mean, self.ours.deviation, 2), str(self.ours.seeds))
        )
        paper = "" if self.paper is None else _spread(self.paper, self.paper_deviation, 1)
        difference = "" if self.difference is None else f"{self.difference:+.2f}"
        return dict(zip((*OURS, *PAPERS), (*ours, paper, difference), strict=True))


class Line(NamedTuple):
    """One line: its labels, a cell for each group of columns, and the paper's numbers of each other method."""

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    others: tuple[tuple[float, ...], ...] = ()

    def other_texts(self) -> list[str]:
        """The numbers of each other method as one text."""
        return [" / ".join(map(str, numbers)) for numbers in self.others]


class Curve(NamedTuple):
    """A training over its epochs, counted from 1: the loss, and the AUROC of pixels and images in percent."""

    loss: dict[int, float]
    localization: dict[int, float]
    detection: dict[int, float]


class Comparison(NamedTuple):
    """A whole table.

    Attributes:
        title: its title.
        heads: heads of the columns of labels.
        groups: names of the cells of a line, such as detection and localization.
        others: heads of the columns with other methods.
        lines: from top to bottom.
        notes: remarks on how to read it, a sentence each.
        curves: by the name of a line, one for each seed; only of Figs. 2 and 4.
    """

    title: str
    heads: tuple[str, ...]
    groups: tuple[str, ...]
    others: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    curves: Mapping[str, tuple[Curve, ...]] = {}

    def columns(self) -> dict[str, tuple[str, ...]]:
        """The columns of each group, without the paper's where it has no number."""
        compared = [
            any(line.cells[place].paper is not None for line in self.lines) for place in range(len(self.groups))
        ]
        return {group: (*OURS, *PAPERS) if paper else OURS for group, paper in zip(self.groups, compared, strict=True)}


def over_seeds(fractions: Iterable[float | None]) -> Number | None:
    """The number in percent over the `fractions` of several seeds, without undefined ones; None if all are."""
    values = [100 * value for value in fractions if value is not None]
    if not values:
        return None
    return Number(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def _spread(mean: float, deviation: float | None, digits: int) -> str:
    return f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.2f}"
