"""What a training takes of a data set: which classes count as normal, and how many images of each."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from uniad_lightning.data.records import Record, Splits
from uniad_lightning.errors import InputError, did_you_mean


def normal_against_rest(splits: Splits, normal_classes: int | str | Sequence[int | str]) -> Splits:
    """Whole categories as anomalies (Sec. 4.4): only the `normal_classes` are trained on, all others are defective.

    `normal_classes` are names or positions in the sorted categories, or their digits in one text such as `02468`.
    A defective image of a normal class stays what it is; every test image of another class becomes defective, its
    defect the name of the class, without a mask, since nothing in it is normal.

    Raises InputError for no class, all classes, one that is not there, or one that is named twice.
    """
    normal = _names(normal_classes, splits.categories)

    def seen(record: Record) -> Record:
        return record if record.category in normal else record._replace(masks=(), defect=record.category, label=1)

    return splits._replace(
        train=tuple(record for record in splits.train if record.category in normal),
        test=tuple(seen(record) for record in splits.test),
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
    for part in parts:
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


def _evenly(records: Iterable[Record], limit: int) -> tuple[Record, ...]:
    listed = list(records)
    groups: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position, record in enumerate(listed):
        groups[record.category, record.label].append(position)
    kept = {g[i * len(g) // limit] for g in groups.values() if len(g) > limit for i in range(limit)}
    kept |= {position for g in groups.values() if len(g) <= limit for position in g}
    return tuple(listed[position] for position in sorted(kept))
