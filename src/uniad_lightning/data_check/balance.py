"""Checks of a data set as a whole: how many images its products have, and how train and test images differ."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from uniad_lightning.data.records import Packed, Record, Splits, counts
from uniad_lightning.data_check.findings import Finding
from uniad_lightning.data_check.looks import TEST, Look

_FEW = 10  # good train images
_TIMES = 10  # as many train images in the largest product as in the smallest


def check_counts(splits: Splits) -> Iterator[Finding]:
    """Products with few train images or far fewer than others, and without good or defective test images."""
    rows = counts(splits)
    most = max(rows, key=lambda row: row.train_good, default=None)
    for row in rows:
        folder = _folder([r for r in (*splits.train, *splits.test) if r.category == row.category])
        if row.train_good < _FEW:
            yield Finding("few train images", folder, f"{row.category} has {row.train_good} good images to train on")
        if most is not None and most.train_good >= _TIMES * max(row.train_good, 1):
            found = f"{row.category} has {row.train_good} train images, {most.category} {most.train_good}"
            yield Finding("unequal products", folder, found)
        for number, kind in ((row.test_good, "good"), (row.test_defective, "defective")):
            if not number:
                yield Finding("nothing to test", folder, f"{row.category} has no {kind} test image")


def check_likeness(splits: Splits, looks: Sequence[Look]) -> Iterator[Finding]:
    """Products whose test images have another size or another file format than the train images."""
    for name in splits.categories:
        own = [look for look in looks if look.record.category == name and not look.fault]
        train, test = ([look for look in own if (look.split == TEST) is tested] for tested in (False, True))
        if not train or not test:
            continue
        formats = [{_suffix(look.record) for look in part} for part in (train, test)]
        if not formats[0] & formats[1]:
            found = " and ".join(", ".join(sorted(part)) for part in formats)
            yield Finding("train and test in other formats", _folder([test[0].record]), f"{name} has {found}")
        known = {look.size for look in train}
        new = [look for look in test if look.size not in known]
        if new:
            height, width = new[0].size
            found = f"{len(new)} test images of {name} have sizes that no train image has, such as {height} x {width}"
            yield Finding("size only in the test", new[0].record.image, found)


def _suffix(record: Record) -> str:
    suffix = Path(record.image.name).suffix.lower()
    return {".jpg": ".jpeg", ".tif": ".tiff"}.get(suffix, suffix)


def _folder(records: Sequence[Record]) -> Path:
    """The folder of the first of some images."""
    image = records[0].image if records else Path()
    return (image.file if isinstance(image, Packed) else image).parent
