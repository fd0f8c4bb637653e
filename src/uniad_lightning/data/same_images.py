"""Images that occur twice: the same file by another path, or a copy of it."""

from collections import defaultdict
from collections.abc import Iterable
from filecmp import cmp
from pathlib import Path

from uniad_lightning.data.records import Record


def among(images: Iterable[Path], records: Iterable[Record]) -> set[Path]:
    """Those of the `images`, resolved paths, that `records` contains: the same file, or a copy of the same name."""
    by_name: dict[str, set[Path]] = defaultdict(set)
    for record in records:
        if isinstance(record.image, Path):
            real = record.image.resolve()
            by_name[real.name].add(real)
    return {
        image
        for image in images
        if image in by_name[image.name] or any(cmp(image, other, shallow=False) for other in by_name[image.name])
    }
