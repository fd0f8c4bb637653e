"""The metadata of an exported file: every value checked, since the file may come from anyone."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from uniad_lightning import __version__
from uniad_lightning.data.images.channels import Channels, check_channels
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.errors import InputError, one_line
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.types import Box, Size

CHANNELS_FORMAT = 4  # of a file that says which channels of an image it takes, which older readers do not ask
FORMAT = 3  # of the file: raised when an older reader would misread it; 2: has a white level, 3: finds the category
_NEEDED = ("region", "calibration", "image_size", "tiles")


class About(NamedTuple):
    """What an exported file says of itself.

    Attributes:
        values: all of its metadata, plain values by name.
        image_size: (height, width) of what its network sees of an image, or of each tile.
        tiles: how many an image is cut into.
        region: the part of an image that is inspected.
        white_level: the value that is white in images of more than 8 bits.
        channels: of an image file, which are red, green and blue; None: as it says.
        categories: those of the training.
        found: the categories that the output `category` counts.
        calibration: the boundaries; None where none were set.
    """

    values: dict[str, Any]
    image_size: Size
    tiles: int
    region: Box
    white_level: int
    channels: Channels | None
    categories: tuple[str, ...]
    found: tuple[str, ...]
    calibration: Calibration | None


def read_about(texts: Mapping[str, str], path: str, inputs: str) -> About:
    """The metadata in `texts`, JSON by name, of the file at `path`; `inputs` describes those of its graph.

    Raises InputError for a file of another program, one that is too new, and a value that no such file has.
    """
    if "format" not in texts:
        raise InputError(
            f"{path}: is not a detector of uniad-lightning (its input: {inputs}); expected a file of uniad export"
        )
    try:
        about = {name: json.loads(text) for name, text in texts.items()}
        newer = about["format"] > CHANNELS_FORMAT
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its metadata is damaged ({one_line(error)}); export it again") from None
    if newer:
        raise InputError(
            f"{path}: format {about['format']}, written by uniad-lightning {about.get('version')}; this one is "
            f"{__version__} and reads format {CHANNELS_FORMAT}; update it, or export again with this one"
        )
    missing = set(_NEEDED) - about.keys()
    if missing:
        raise InputError(f"{path}: its metadata lacks {', '.join(sorted(missing))}; export it again")
    try:
        return _checked(about)
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: its metadata is damaged ({one_line(error)}); export it again") from None


def _checked(about: dict[str, Any]) -> About:
    height, width = _numbers(about, "image_size", 2, (int,), 1, 2**16)
    top, left, bottom, right = _numbers(about, "region", 4, (int, float), 0, 1)
    if not (top < bottom and left < right):
        raise ValueError(f"region is {about['region']!r:.80}, expected top, left, bottom, right")
    (tiles,) = _numbers({"tiles": [about["tiles"]]}, "tiles", 1, (int,), 1, 2**16)
    (white,) = _numbers(
        {"white_level": [about.get("white_level", FULL_RANGE)]}, "white_level", 1, (int,), 1, FULL_RANGE
    )
    plain = about["calibration"]
    return About(
        about,
        (height, width),
        tiles,
        (top, left, bottom, right),
        white,
        _channels(about.get("channels")),
        _names(about, "categories"),
        _names(about, "found"),
        None if plain is None else Calibration.from_plain(plain),
    )


def _numbers(
    about: Mapping[str, Any], name: str, count: int, kinds: tuple[type, ...], low: float, high: float
) -> list[Any]:
    """A list of `count` numbers from `low` to `high`; ValueError for anything else."""
    values: Any = about[name]
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"{name} is {values!r:.80}, expected {count} numbers")
    for value in values:
        if type(value) not in kinds or not low <= value <= high:
            raise ValueError(f"{name} has {value!r:.40}, expected numbers from {low} to {high}")
    return values


def _channels(value: Any) -> Channels | None:
    try:
        return check_channels(value)
    except InputError as error:
        raise ValueError(str(error)) from None


def _names(about: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = about.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{name} is {values!r:.80}, expected names")
    return tuple(values)
