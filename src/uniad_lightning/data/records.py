"""The list of a data set's images: one `Record` per image, sorted into `Splits`. No torch."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

GOOD = "good"  # the folder of normal images in MVTec AD; no defect may have this name


class Packed(NamedTuple):
    """One image of a file that holds many.

    Attributes:
        file: the file.
        position: the image's place in it, from 0.
    """

    file: Path
    position: int

    def __str__(self) -> str:
        return f"{self.file}#{self.position}"

    @property
    def name(self) -> str:
        """File name and place, such as `data_batch_1#42`."""
        return f"{self.file.name}#{self.position}"


class Record(NamedTuple):
    """One image with its labels.

    Attributes:
        image: file of the image, or its place in a file of many.
        masks: files of the defect mask, each at the image's own size; their union is the defect. Empty for good images
            and for defective ones without a mask.
        category: category of the image.
        defect: kind of defect, `good` for a normal image.
        label: 0 good, 1 defective; from the folder, never from the mask.
        tile: the tile of the image that this record stands for (`Framing`); None: the whole image.
    """

    image: Path | Packed
    masks: tuple[Path, ...]
    category: str
    defect: str
    label: int
    tile: int | None = None


class Splits(NamedTuple):
    """The records of a data set, each split in its final, deterministic order.

    Attributes:
        categories: sorted names; a record's category number is its position here.
        train: good images only, of all categories.
        test: good and defective images of all categories.
        validation: good images that are neither trained nor tested on.
    """

    categories: tuple[str, ...]
    train: tuple[Record, ...]
    test: tuple[Record, ...]
    validation: tuple[Record, ...] = ()

    @property
    def all(self) -> tuple[Record, ...]:
        """The records of all splits."""
        return (*self.train, *self.validation, *self.test)


class CategoryCount(NamedTuple):
    """How many images one category has.

    Attributes:
        category: name of the category.
        train_good: good images to train on.
        validation_good: good validation images.
        test_good: good images of the test split.
        test_defective: defective images of the test split, of all kinds together.
        by_defect: the defective images by kind of defect, sorted by name.
    """

    category: str
    train_good: int
    validation_good: int
    test_good: int
    test_defective: int
    by_defect: dict[str, int]


def counts(splits: Splits) -> list[CategoryCount]:
    """One row per category of `splits.categories`, in that order, also for a category without any record."""
    train = Counter(r.category for r in splits.train if not r.tile)  # tiles of one image count once
    validation = Counter(r.category for r in splits.validation)
    good = Counter(record.category for record in splits.test if record.label == 0)
    defects = _count_defects(splits.test)
    rows = []
    for name in splits.categories:
        by_defect = {defect: n for (owner, defect), n in defects if owner == name}
        rows.append(CategoryCount(name, train[name], validation[name], good[name], sum(by_defect.values()), by_defect))
    return rows


def _count_defects(records: Iterable[Record]) -> list[tuple[tuple[str, str], int]]:
    """((category, defect), images) of the defective records, sorted."""
    return sorted(Counter((record.category, record.defect) for record in records if record.label == 1).items())
