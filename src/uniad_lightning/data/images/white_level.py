"""Which value is white in images of more than 8 bits: given, or found once from the train images.

16 bits are a container: cameras put 10 or 12 into it, and of those a division by 65535 leaves a few grey levels.
"""

import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from uniad_lightning.data.images.decoding import peak_of
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError, say

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


def find_white_level(records: Iterable[Record], *, threads: int) -> int | None:
    """The smallest of `LEVELS` that holds all values of the records' deep images; None where no image is deep.

    Those are of more than 8 bits without a range that their format declares. Of the others the header is read, of
    these every pixel, until one shows that only the last level will do. A file that cannot be read is passed over here.
    """
    paths = list(dict.fromkeys(record.image for record in records if isinstance(record.image, Path)))
    peak = 0
    pool = ThreadPoolExecutor(threads)
    pace = 0.2 if sys.stderr.isatty() else 30  # in a log file every refresh is a line
    try:
        with tqdm(total=len(paths), desc="grey levels", unit="image", leave=False, mininterval=pace, delay=2) as bar:
            for found in pool.map(_peak, paths):
                peak = max(peak, found)
                bar.update()
                if peak > LEVELS[-2]:
                    break
    finally:
        pool.shutdown(cancel_futures=True)
    if not peak:
        return None
    level = next((level for level in LEVELS if peak <= level), FULL_RANGE)
    say(_said(peak, level))
    return level


def _said(peak: int, level: int) -> str:
    held = f"at most {peak}" if level < FULL_RANGE else f"up to {peak}"
    return (
        f"train images of more than 8 bits hold {held}: white is {level} (data.white_level={level} says so without "
        "looking)"
    )


def _peak(path: Path) -> int:
    try:
        return peak_of(path)
    except InputError:  # said where it is needed, together with others
        return 0


def white_level_of(data: Mapping[str, Any]) -> int | str:
    """The level in the configuration `data` of a checkpoint; `auto` where its training had no deep image."""
    return data.get("white_level", FULL_RANGE)  # before there was the key


def as_number(level: int | str) -> int:
    """The level as a number; where nothing is known of the images, all of 16 bits."""
    return FULL_RANGE if level == AUTO else int(level)
