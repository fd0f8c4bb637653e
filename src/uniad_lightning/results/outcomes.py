"""False alarms and misses on test images."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.results.decisions import LABELS, ScoredRecord
from uniad_lightning.results.printing import LEFT, RIGHT, print_table
from uniad_lightning.results.run_folder import OUTCOMES, TEST_SCORES, write_text


class Outcome(NamedTuple):
    """False alarms and misses of a boundary on the test images of one category, or of all.

    Attributes:
        category: its name.
        boundary: the boundary's score.
        good: good test images.
        false_alarms: those above the boundary.
        defective: defective test images.
        misses: those not above it.
    """

    category: str
    boundary: float
    good: int
    false_alarms: int
    defective: int
    misses: int


def with_sum(rows: list[Outcome]) -> list[Outcome]:
    """`rows` and, where there are any, their sum `all`, whose boundary is NaN unless they have the same."""
    if not rows:
        return rows
    boundary = rows[0].boundary if len({row.boundary for row in rows}) == 1 else float("nan")
    counts = [sum(column) for column in zip(*(row[2:] for row in rows), strict=True)]
    return [*rows, Outcome("all", boundary, *counts)]


def report_decisions(folder: Path, images: Sequence[ScoredRecord]) -> list[Outcome]:
    """Write `test_scores.csv` and, where a boundary decides, `outcomes.csv`; returns the rows of the latter."""
    heads = ["path", "category", "label", "score", "decision"]
    rows = [
        [str(i.record.image), i.record.category, LABELS[i.record.label], f"{i.score:.9g}", i.decision] for i in images
    ]
    write_text(folder / TEST_SCORES, csv_text([heads, *rows]))
    outcomes, kinds = _count(images)
    if outcomes:
        table = [[kind, *row] for kind, row in zip(kinds, outcomes, strict=True)]
        write_text(folder / OUTCOMES, csv_text([["kind", *Outcome._fields], *table]))
    return outcomes


def _count(images: Sequence[ScoredRecord]) -> tuple[list[Outcome], list[str]]:
    """Outcomes by category and their sum, and whether each category's boundary is its own or the one for all."""
    rows, kinds = [], []
    for name in sorted({image.record.category for image in images}):
        own = [image for image in images if image.record.category == name]
        limits = own[0].limits
        if limits is None:
            return [], []
        good, defective = (sum(image.record.label == label for image in own) for label in (0, 1))
        alarms, misses = (sum(image.mistake == mistake for image in own) for mistake in ("false alarm", "missed"))
        rows.append(Outcome(name, limits.score, good, alarms, defective, misses))
        kinds.append(limits.kind)
    return with_sum(rows), [*kinds, kinds[0] if len(set(kinds)) == 1 else "both"]


def show_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Print false alarms and misses of each category, and of all."""
    heads = ("boundary", "good", "false\nalarms", "defective", "misses")
    rows: list[Sequence[object] | None] = []
    for row in outcomes:
        if row.category == "all":
            rows.append(None)
        boundary = "" if row.boundary != row.boundary else f"{row.boundary:.4g}"
        rows.append([row.category, boundary, row.good, row.false_alarms, row.defective, row.misses])
    print_table("decisions on the test images", [("category", LEFT), *((head, RIGHT) for head in heads)], rows)
