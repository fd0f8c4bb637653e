"""Which images may set a boundary: good ones that the detector was not trained on."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from uniad_lightning.calibration.boundaries import missing_images_message
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.folder_categories import DEFECTIVE
from uniad_lightning.data.layouts.patterns import matches
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.data.same_images import among
from uniad_lightning.data.selection import image_groups
from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.files.within import stays_within


def not_trained_on(splits: Splits, checkpoint: dict[str, Any]) -> Splits:
    """`splits` without the validation and test images that the checkpoint was trained on.

    Raises InputError for held-out images of a category that it was not trained on: train images are not recognised
    under another category name.
    """
    unknown = {record.category for record in splits.validation} - set(map(composed, checkpoint.get("categories", ())))
    if unknown and "categories" in checkpoint:
        known = ", ".join(checkpoint["categories"])
        raise InputError(
            f"data: held-out images of {', '.join(sorted(unknown))}; the checkpoint was trained on {known}; "
            f"leave the others out with 'data.categories=[{','.join(checkpoint['categories'])}]', or calibrate on the "
            "data it was trained on"
        )
    trained = set(checkpoint.get("trained", torch.zeros(0)).tolist())

    def untrained(records: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(
            r for r, group in zip(records, image_groups(records).tolist(), strict=True) if group not in trained
        )

    return splits._replace(validation=untrained(splits.validation), test=untrained(splits.test))


def refuse_without_images(good: Sequence[Record], test: Sequence[Record], *, by: str, cross_fitted: bool) -> None:
    """Raises InputError where the images are missing that a boundary set `by` needs, before any of them is scored."""
    if not (good or cross_fitted if by == "rate" else {0, 1} == {record.label for record in test}):
        raise InputError(missing_images_message(by))


def without_defects(test: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The test images of categories of which none is defective, so that they tell nothing of misses; and the others."""
    with_defects = {record.category for record in test if record.label}
    good = [record for record in test if record.category not in with_defects]
    return good, [record for record in test if record.category in with_defects]


def further_good(patterns: str | Sequence[str], known: Splits) -> list[Record]:
    """Records, without a category, of the good images that `patterns` name: a folder, a file, a glob, or several.

    Held-out images of `known` are left out. Raises InputError for no image, and for a train image of `known`.
    """
    paths = _named(patterns, "good")
    trained = among(paths, known.train)
    if trained:
        raise InputError(
            f"good={patterns}: {paths[min(trained)]} and {len(trained) - 1} more were trained on, and their scores "
            "would set the boundary too low; give others"
        )
    held_out = among(paths, known.validation)
    return [Record(path, (), "", GOOD, 0) for real, path in sorted(paths.items()) if real not in held_out]


def further_defective(patterns: str | Sequence[str], good: Sequence[Record]) -> list[Record]:
    """Records, without a category, of the defective images that `patterns` name, as `further_good` takes them.

    Raises InputError for no image, and for one that is among the further `good` ones.
    """
    paths = _named(patterns, "defective")
    both = among(paths, good)
    if both:
        raise InputError(f"defective={patterns}: {paths[min(both)]} is given as good, too; take it out of one of them")
    return [Record(path, (), "", DEFECTIVE, 1) for _, path in sorted(paths.items())]


def _named(patterns: str | Sequence[str], key: str) -> dict[Path, Path]:
    """The images that `patterns` name by their resolved paths; InputError with `key` for none."""
    listed = [patterns] if isinstance(patterns, str) else list(patterns) if isinstance(patterns, Sequence) else []
    if not listed or not all(isinstance(pattern, str) and pattern for pattern in listed):
        raise InputError(f"{key}={patterns}: expected a folder, a file, a glob, or a list of them; quote a number")
    return {path.resolve(): path for pattern in listed for path in matches(*_rooted(pattern), key=key)}


def without_further(splits: Splits, further: Sequence[Record]) -> tuple[Splits, int]:
    """`splits` without the test images that are among the `further` ones, and how many these are.

    They set the boundary, which therefore cannot be tested on them.
    """
    reused = among({r.image.resolve() for r in splits.test if isinstance(r.image, Path)}, further)
    rest = tuple(r for r in splits.test if not (isinstance(r.image, Path) and r.image.resolve() in reused))
    return splits._replace(test=rest), len(splits.test) - len(rest)


def _rooted(pattern: str) -> tuple[Path, str]:
    """The folder that a pattern starts in, and the rest of it."""
    path = expand(pattern)
    if stays_within(path):
        return Path.cwd(), str(path)
    path = Path(os.path.abspath(path))
    return Path(path.anchor), str(path.relative_to(path.anchor))
