"""Training without the good images that cannot be read, where that is asked for (`data.on_error=skip`).

Test images are never left out: metrics over fewer images would be those of another test split.
"""

from pathlib import Path

from uniad_lightning.data.checking import undecodable
from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.records import Splits
from uniad_lightning.errors import InputError

REFUSE, SKIP = "refuse", "skip"
_SHOWN = 5  # images that a message names


def check_skipping(on_error: object, max_skipped: object) -> None:
    """Raises InputError for values that the keys `data.on_error` and `data.max_skipped` cannot have."""
    if on_error not in (REFUSE, SKIP):
        raise InputError(
            f"data.on_error={on_error}: expected {REFUSE} (images that cannot be read end the run) or {SKIP} (train "
            "images that cannot be read are left out)"
        )
    if isinstance(max_skipped, bool) or not isinstance(max_skipped, int | float) or not 0 <= max_skipped < 1:
        raise InputError(
            f"data.max_skipped={max_skipped}: expected a share of the train images from 0 and below 1, such as 0.01"
        )


def readable(
    splits: Splits, on_error: str, most: float, channels: Channels | None = None
) -> tuple[Splits, dict[Path, str]]:
    """`splits` as they are, or `without_unreadable` where `on_error` is `skip`."""
    return without_unreadable(splits, most, channels) if on_error == SKIP else (splits, {})


def without_unreadable(splits: Splits, most: float, channels: Channels | None = None) -> tuple[Splits, dict[Path, str]]:
    """`splits` without the train and held-out images that cannot be decoded, and the message on each of them.

    Every one of these images is decoded for that, so that damage in the middle of a file is found, too.

    Raises InputError where they are more than a share `most` of the train and held-out images, or all train images of a
    category; TemporaryError where the system is at fault for one.
    """
    good = [*splits.train, *splits.validation]
    bad = undecodable(good, channels)
    if len(bad) > most * len(good):
        raise InputError(
            f"{_said(bad, len(good))}, more than data.max_skipped={most}; replace or delete them, or raise it"
        )
    kept, held_out = (tuple(r for r in part if r.image not in bad) for part in (splits.train, splits.validation))
    lost = {record.category for record in splits.train} - {record.category for record in kept}
    if lost:
        raise InputError(f"no train image of {', '.join(sorted(lost))} can be read; {_said(bad, len(good))}")
    return splits._replace(train=kept, validation=held_out), bad


def skipped_message(bad: dict[Path, str], splits: Splits) -> str:
    """The line for the log, where `splits` are those left; empty where no image was left out."""
    number = len(bad) + len(splits.train) + len(splits.validation)
    return f"{_said(bad, number)}; they are left out (data.on_error={SKIP})" if bad else ""


def _said(bad: dict[Path, str], number: int) -> str:
    more = f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    named = "; ".join(list(bad.values())[:_SHOWN])
    return f"{len(bad)} of {number} train images cannot be read ({named}{more})"
