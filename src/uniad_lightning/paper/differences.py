"""Which differences between the rows of a table are noise of the test images: a paired bootstrap of their scores.

Two rows are of the same test images, which are drawn together: what is hard for both is no difference. Seeds are as
they are: the number of a row is the mean over them, in every resample.
"""

import csv
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from uniad_lightning.errors import InputError
from uniad_lightning.metrics.bootstrap import Interval, interval, multiplicities, resampled_rankings
from uniad_lightning.paper.comparison import NONE
from uniad_lightning.paper.filling import Layout, Rows, whole_seeds
from uniad_lightning.paper.gathering import Run
from uniad_lightning.results.decisions import LABELS
from uniad_lightning.results.run_folder import TEST_SCORES

_SEED = 0  # of the resamples: the same runs have the same notes
_HEADS = ("path", "category", "label", "score")


class Images(NamedTuple):
    """The test images of a row, sorted, which have to be the same in two rows.

    Attributes:
        names: category and path of each, below the folder that holds all.
        labels: (N,) 0 or 1.
        categories: (N,) ids.
    """

    names: tuple[tuple[str, str], ...]
    labels: np.ndarray
    categories: np.ndarray


class ScoredRow(NamedTuple):
    """A row of a table: its test images and their scores, (S, N) of S seeds."""

    images: Images
    scores: np.ndarray


def notes_on_differences(layout: Layout, rows: Rows) -> list[str]:
    """Notes on which rows differ from the best in image AUROC, as far as the runs have scores of the same images.

    The AUROC is the table's, the mean over the categories or that of the pool; none for a table without one. Raises
    InputError for scores that cannot be read.
    """
    measured = {name for name, number in layout.measures.values() if number == "image_auroc"}
    if not measured or len(rows) < 2:
        return []
    known: dict[Hashable, ScoredRow] = {}
    without: list[str] = []
    for row in rows:
        seeds = whole_seeds(rows, row, [])
        missing = [run.folder for part in seeds for run in part if not (run.folder / TEST_SCORES).is_file()]
        without += [f"no test of differences: {folder} has no {TEST_SCORES}" for folder in missing[:1]]
        if seeds and not missing:
            known[row] = _scored(seeds)
    notes = [note for group in _same_images(known) for note in _compare(layout, group, pooled="pooled" in measured)]
    return [*notes, *without]


def _scored(seeds: Sequence[Sequence[Run]]) -> ScoredRow:
    tables = [{name: found for run in part for name, found in read_scores(run.folder).items()} for part in seeds]
    names = tuple(sorted(tables[0]))
    if any(tuple(sorted(table)) != names for table in tables):
        raise InputError(
            f"{' and '.join(str(part[0].folder) for part in seeds[:2])}: {TEST_SCORES} are of other images, and a row "
            "of the table is of one test split; evaluate both on the same data"
        )
    labels = np.array([tables[0][name][0] for name in names])
    ids = np.unique([category for category, _ in names], return_inverse=True)[1]
    return ScoredRow(Images(names, labels, ids), np.array([[table[name][1] for name in names] for table in tables]))


def read_scores(folder: Path) -> dict[tuple[str, str], tuple[int, float]]:
    """Label and score of each test image of a run, by category and path below the folder that holds all.

    Raises InputError for a file that no evaluation has written.
    """
    path = folder / TEST_SCORES
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [[line[head] for head in _HEADS] for line in csv.DictReader(file)]
        scored = [(name, category, LABELS.index(label), float(score)) for name, category, label, score in lines]
        root = os.path.commonpath([os.path.dirname(name) for name, *_ in scored])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); expected columns {', '.join(_HEADS)} and a line for each test image; "
            "evaluate the run again"
        ) from None
    return {(category, os.path.relpath(name, root)): (label, score) for name, category, label, score in scored}


def _same_images(rows: Mapping[Hashable, ScoredRow]) -> Iterator[dict[Hashable, ScoredRow]]:
    """The rows in groups of the same test images, those of several rows."""
    groups: dict[tuple, dict[Hashable, ScoredRow]] = {}
    for name, row in rows.items():
        groups.setdefault((row.images.names, *row.images.labels.tolist()), {})[name] = row
    return (group for group in groups.values() if len(group) > 1)


def _compare(layout: Layout, rows: Mapping[Hashable, ScoredRow], *, pooled: bool) -> list[str]:
    """Notes on the rows of one test split."""
    images = next(iter(rows.values())).images
    drawn = multiplicities(2 * images.categories + images.labels, seed=_SEED)
    drawn = np.concatenate([np.ones_like(drawn[:1]), drawn])
    parts = [images.categories >= 0] if pooled else [images.categories == i for i in np.unique(images.categories)]
    aurocs = {name: resampled_aurocs(row, drawn, parts) for name, row in rows.items()}
    aurocs = {name: values for name, values in aurocs.items() if not np.isnan(values).any()}
    if len(aurocs) < 2:
        return []
    best = max(aurocs, key=lambda name: aurocs[name][0])
    kinds: dict[bool, list[str]] = {True: [], False: []}
    for name, values in aurocs.items():
        if name != best:
            difference = 100 * (values - aurocs[best])
            ends = interval(difference[1:])
            kinds[ends.low <= 0 <= ends.high].append(f"{_label(layout, name)} {_text(difference[0], ends)}")
    what = f"{'pooled' if pooled else 'mean'} image AUROC less that of {_label(layout, best)}, the best"
    where = {True: "within", False: "beyond"}
    return [
        f"{where[noise]} the noise of the {len(images.names)} test images: {what}, with its 95 % interval (paired "
        f"bootstrap): {'; '.join(names)}"
        for noise, names in kinds.items()
        if names
    ]


def resampled_aurocs(row: ScoredRow, drawn: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """The AUROC (R,) of a row in each of the resamples `drawn` (R, N): mean over seeds, and over `parts` (N,) bool.

    Parts without good or without defective images are left out; NaN where none is left.
    """
    labels = row.images.labels
    whole = [part for part in parts if len(np.unique(labels[part])) == 2]
    found = [resampled_rankings(s[part], labels[part], drawn[:, part])[0] for s in row.scores for part in whole]
    return np.mean(found, axis=0) if found else np.full(len(drawn), np.nan)


def _label(layout: Layout, row: Hashable) -> str:
    line = layout.lines.get(row)
    words = line.labels if line is not None else row if isinstance(row, tuple) else (row,)
    return ", ".join(str(word) for word in words if word != NONE)


def _text(difference: float, ends: Interval) -> str:
    return f"{difference:+.2f} ({ends.low:+.2f} to {ends.high:+.2f})"
