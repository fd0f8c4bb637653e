"""Selecting images of a data set: normal classes, a limit for each category, held-out images."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.records import Packed, Record, Splits
from uniad_lightning.errors import InputError, did_you_mean


def select(
    splits: Splits,
    normal_classes: int | str | Sequence[int | str] | None,
    *,
    held_out: float,
    limit: int | None,
    rehearsed: tuple[Collection[str], int | None],
) -> Splits:
    """The `splits` after all that a data module may ask: classes as anomalies, images held out, limited, rehearsed."""
    if normal_classes is not None:
        splits = normal_against_rest(splits, normal_classes)
    splits = hold_out(splits, held_out)
    if limit is not None:
        splits = limit_images(splits, limit)
    return rehearse(splits, *rehearsed)


def normal_against_rest(splits: Splits, normal_classes: int | str | Sequence[int | str]) -> Splits:
    """Whole categories as anomalies (Sec. 4.4): only the `normal_classes` are trained on, all others are defective.

    `normal_classes` are names or positions in the sorted categories, or their digits in one text such as `02468`.
    Test images of a normal class keep their labels; those of another class become defective, with the name of the class
    as defect and without a mask, since nothing in them is normal.

    Raises InputError for no class, all classes, an unknown one, or one that is named twice.
    """
    normal = _names(normal_classes, splits.categories)

    def relabelled(record: Record) -> Record:
        return record if record.category in normal else record._replace(masks=(), defect=record.category, label=1)

    return splits._replace(
        train=tuple(record for record in splits.train if record.category in normal),
        test=tuple(relabelled(record) for record in splits.test),
        validation=tuple(record for record in splits.validation if record.category in normal),
    )


def _names(given: int | str | Sequence[int | str], categories: tuple[str, ...]) -> set[str]:
    """The categories meant by `given`."""
    key = "data.normal_classes"
    if isinstance(given, int | str) and str(given).isdecimal():
        parts: list[int | str] = [int(digit) for digit in str(given)]
    else:
        parts = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    names = []
    for part in (composed(part) if isinstance(part, str) else part for part in parts):
        position = int(part) if str(part).isdecimal() and part not in categories else None
        if position is not None and position < len(categories):
            names.append(categories[position])
        elif part in categories:
            names.append(str(part))
        else:
            known = ", ".join(f"{i} {name}" for i, name in enumerate(categories))
            raise InputError(f"{key}: no class '{part}'.{did_you_mean(str(part), categories)} Classes: {known}")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InputError(f"{key}={given}: names {', '.join(sorted(twice))} twice; name each class once")
    if not 0 < len(names) < len(categories):
        raise InputError(f"{key}={given}: {len(names)} of {len(categories)} classes; expected some, but not all")
    return set(names)


def limit_images(splits: Splits, limit: int) -> Splits:
    """At most `limit` train, validation, good test and defective test images of each category, evenly spaced."""
    return splits._replace(
        train=_evenly(splits.train, limit),
        test=_evenly(splits.test, limit),
        validation=_evenly(splits.validation, limit),
    )


def hold_out(splits: Splits, share: float) -> Splits:
    """Moves about a `share` of each category's train images, at least one, into `validation`.

    They are neither trained nor tested on, and later set the boundary between good and defective. They are chosen by
    their names alone, so they stay the same when images are added (but for the single one of a small category).

    Raises InputError for a share outside [0, 0.9], and for a category with a single image.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 0.9:
        raise InputError(f"data.held_out={share}: expected a share of the train images from 0 to 0.9")
    if share == 0:
        return splits
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in splits.train:
        groups[record.category].append(record)
    held_out: set[Record] = set()
    for name, group in groups.items():
        if len(group) == 1:
            raise InputError(f"data.held_out={share}: {name} has a single good train image; give it more")
        held_out |= {record for record in group if _fraction(record) < share} or {min(group, key=_fraction)}
    return splits._replace(
        train=tuple(record for record in splits.train if record not in held_out),
        validation=(*splits.validation, *(record for record in splits.train if record in held_out)),
    )


def image_groups(records: Iterable[Record]) -> Tensor:
    """(n,) int64: a number for each image, a hash of its category, its last two folders and its name."""
    return torch.tensor([_number(record) - 2**63 for record in records], dtype=torch.int64)


def apart_from(splits: Splits, trained: Collection[int], *, other: bool) -> tuple[Splits, str]:
    """`splits` without the good test images whose numbers (`image_groups`) are among those `trained` on, and a warning.

    Of `other` data than the training's none is removed, since there only the names are the same.
    """
    numbers = image_groups(splits.test).tolist()
    known = {r for r, number in zip(splits.test, numbers, strict=True) if r.label == 0 and number in trained}
    if not known:
        return splits, ""
    first = f"{len(known)} good images, such as {min(str(record.image) for record in known)},"
    if other:
        return splits, (
            f"{first} have the names of images that the checkpoint was trained on; if they are the same, these results "
            "are better than those of new images"
        )
    tested = tuple(record for record in splits.test if record not in known)
    return splits._replace(test=tested), f"{first} are not tested, since the checkpoint was trained on them"


def _fraction(record: Record) -> float:
    """The number of an image (`image_groups`) scaled to [0, 1)."""
    return _number(record) / 2**64


def _number(record: Record) -> int:
    file, place = record.image if isinstance(record.image, Packed) else (record.image, 0)
    name = "/".join([record.category, *file.parts[-3:], str(place)])  # `test/good/000.png` is not `train/good/000.png`
    name = composed(name)  # does not change when files are copied between systems
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest(), "big")


def rehearse(splits: Splits, known: Collection[str], count: int | None) -> Splits:
    """At most `count` train images of each `known` category, evenly spaced, and all of the others; None: all."""
    if count is None:
        return splits
    kept = set(_evenly((record for record in splits.train if record.category in known), count))
    return splits._replace(train=tuple(r for r in splits.train if r.category not in known or r in kept))


def cut_into_tiles(splits: Splits, count: int) -> Splits:
    """One train record for each of the `count` tiles of an image; test images stay whole."""
    if count == 1:
        return splits
    return splits._replace(train=tuple(r._replace(tile=tile) for r in splits.train for tile in range(count)))


def _evenly(records: Iterable[Record], limit: int) -> tuple[Record, ...]:
    listed = list(records)
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position, record in enumerate(listed):
        groups[record.category, record.label].append(position)
    kept = {g[i * len(g) // limit] for g in groups.values() if len(g) > limit for i in range(limit)}
    kept |= {position for g in groups.values() if len(g) <= limit for position in g}
    return tuple(listed[position] for position in sorted(kept))


def spread_over(records: Iterable[Record], count: int) -> list[Record]:
    """About `count` of the records, the same number of each category, evenly spaced; tiles of an image count once."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if not record.tile:
            groups[record.category].append(record)
    spread = []
    for group in groups.values():
        kept = min(max(count // len(groups), 1), len(group))
        spread += [group[i * len(group) // kept] for i in range(kept)]
    return spread
