"""The value of white in images of more than 8 bits: given, or derived once from the train images.

Cameras store 10 or 12 bits in files of 16, and dividing those by 65535 would leave few grey levels.
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.decoding import peak_of
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.progress_bar import progress_bar

AUTO = "auto"
LEVELS = (255, 1023, 4095, 16383, FULL_RANGE)  # white of 8, 10, 12, 14 and 16 bits


def check_white_level(level: int | str) -> int | str:
    """`level`, if it is `auto` or a value that 16 bits can hold; InputError for any other."""
    whole = isinstance(level, int) and not isinstance(level, bool)
    if level != AUTO and not (whole and 1 <= int(level) <= FULL_RANGE):
        raise InputError(
            f"data.white_level={level}: expected {AUTO}, or the value that is white in images of more than 8 bits, "
            f"from 1 to {FULL_RANGE}, such as 4095"
        )
    return level


def find_white_level(records: Iterable[Record], *, threads: int, channels: Channels | None = None) -> int | None:
    """The smallest of `LEVELS` that holds all values of the records' deep images; None where no image is deep.

    Deep images have more than 8 bits and no range declared by their format; where `channels` are given, those alone
    count. Every pixel of them is read, until a value needs the last level, and the header alone of others. Files that
    cannot be read are skipped.
    """
    paths = list(dict.fromkeys(record.image for record in records if isinstance(record.image, Path)))
    peak = 0
    pool = ThreadPoolExecutor(threads)
    try:
        with progress_bar("grey levels", total=len(paths), leave=False, delay=2) as bar:
            for value in pool.map(partial(_peak, channels=channels), paths):
                peak = max(peak, value)
                bar.update()
                if peak > LEVELS[-2]:
                    break
    finally:
        pool.shutdown(cancel_futures=True)
    if not peak:
        return None
    level = next((level for level in LEVELS if peak <= level), FULL_RANGE)
    print_stdout(_message(peak, level))
    return level


def _message(peak: int, level: int) -> str:
    held = f"at most {peak}" if level < FULL_RANGE else f"up to {peak}"
    return (
        f"train images of more than 8 bits hold {held}: white is {level} (data.white_level={level} skips this search)"
    )


def _peak(path: Path, channels: Channels | None) -> int:
    try:
        return peak_of(path, channels)
    except InputError:  # reported where the image is used
        return 0


def white_level_of(data: Mapping[str, Any]) -> int | str:
    """The level in the configuration `data` of a checkpoint; `auto` where its training had no deep image."""
    return data.get("white_level", FULL_RANGE)  # checkpoints from before this key


def as_number(level: int | str) -> int:
    """The level as a number; for `auto` the full range of 16 bits."""
    return FULL_RANGE if level == AUTO else int(level)
