"""What a data set is before anything is read: one `Record` per image file, sorted into `Splits`. No torch."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

GOOD = "good"  # the name MVTec-AD gives to the folder of normal images; no defect may be called so


class Record(NamedTuple):
    """One image file and what is known about it.

    Attributes:
        image: file of the image.
        mask: file of the defect mask, at the image's own size; None where there is none (every good image).
        category: product the image shows.
        defect: kind of defect, `good` for a normal image.
        label: 0 good, 1 defective; from the folder, never from the mask.
    """

    image: Path
    mask: Path | None
    category: str
    defect: str
    label: int


class Splits(NamedTuple):
    """The records of a data set, each split in its final, deterministic order.

    Attributes:
        categories: sorted names; a record's category number is its position here.
        train: good images only, of all categories.
        test: good and defective images of all categories.
    """

    categories: tuple[str, ...]
    train: tuple[Record, ...]
    test: tuple[Record, ...]


class CategoryCount(NamedTuple):
    """How many images one category has.

    Attributes:
        category: name of the category.
        train_good: good images to train on.
        test_good: good images of the test split.
        test_defective: defective images of the test split, of all kinds together.
        by_defect: the same by kind of defect, sorted by name.
    """

    category: str
    train_good: int
    test_good: int
    test_defective: int
    by_defect: dict[str, int]


def counts(splits: Splits) -> list[CategoryCount]:
    """One row per category of `splits.categories`, in that order, also for a category without any record."""
    train = Counter(record.category for record in splits.train if record.label == 0)
    good = Counter(record.category for record in splits.test if record.label == 0)
    defects = _count_defects(splits.test)
    rows = []
    for category in splits.categories:
        by_defect = {defect: n for (owner, defect), n in defects if owner == category}
        rows.append(CategoryCount(category, train[category], good[category], sum(by_defect.values()), by_defect))
    return rows


def _count_defects(records: Iterable[Record]) -> list[tuple[tuple[str, str], int]]:
    """((category, defect), images) of the defective records, sorted."""
    return sorted(Counter((record.category, record.defect) for record in records if record.label == 1).items())
