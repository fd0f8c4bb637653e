"""Images of more than 8 bits a channel: their original values, and the conversion to 8 bits.

Pillow supports 16 bits for grey alone; of 16-bit colour it keeps the upper byte. That loses 10- and 12-bit data, so
upper and lower bytes are decoded one after the other here, by giving the decoder one byte order and then the other.
"""

import re
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from uniad_lightning.data.images.once import Once
from uniad_lightning.data.images.raw_bytes import decoded, rawmode_of, tiles_of, with_rawmode
from uniad_lightning.errors import InputError

FULL_RANGE = 65535  # of 16 bits
CLIPPED = Once()
DARK = Once()
TRANSPARENT = Once()
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES = 258, 262, 284  # TIFF 6.0, section 8
_WHITE_IS_ZERO, _SEPARATE = 0, 2
_OTHER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}  # the opposite byte order, N: native


class Deep(NamedTuple):
    """An upright image of more than 8 bits a channel, with the values of the file.

    Attributes:
        values: (H, W) grey, integers or floats; (H, W, 2) grey and opacity, (H, W, 3) colour, (H, W, 4) both, uint16.
        white: the value of white that the format declares; None where only the 16-bit container is known.
        inverted: whether 0 is white.
        premultiplied: whether colours are multiplied by the opacity already.
    """

    values: np.ndarray
    white: int | None = None
    inverted: bool = False
    premultiplied: bool = False

    @property
    def colour(self) -> np.ndarray:
        """The values without opacity, (H, W) or (H, W, 3)."""
        if self.values.ndim == 2:
            return self.values
        return self.values[..., 0] if self.values.shape[2] == 2 else self.values[..., :3]

    @property
    def opacity(self) -> np.ndarray | None:
        """(H, W); None for an image without."""
        return self.values[..., -1] if self.values.ndim == 3 and self.values.shape[2] != 3 else None


def is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has more than 8 bits a channel, as far as Pillow can decode them."""
    return image.mode.startswith(("I", "F")) or _layers(image) is not None


def read_deep(image: Image.Image, again: Callable[[], AbstractContextManager[Image.Image]]) -> Deep | None:
    """The values of an image file that is opened and not loaded yet; None where 8 bits are all there is.

    `again` opens it once more, for the second byte. A transparent colour (PNG tRNS) is ignored. Raises ValueError
    for 16-bit colour in compressed planes, of which Pillow gives the upper byte alone.
    """
    if image.mode.startswith(("I", "F")):
        return deep_grey(image)
    layers = _layers(image)
    if layers is None:
        return None
    upper, lower = layers
    premultiplied = any("RGBa" in rawmode_of(tile) for tile in tiles_of(image))
    high = np.asarray(decoded(image, upper))
    if lower is None:  # both bytes of grey and of opacity, as if they were four channels
        return Deep(np.ascontiguousarray(high).view(">u2").astype(np.uint16))
    with again() as other:
        low = np.asarray(decoded(other, lower))
    return Deep(high.astype(np.uint16) << 8 | low, premultiplied=premultiplied)


def deep_grey(image: Image.Image) -> Deep:
    """An image in one of Pillow's grey modes of more than 8 bits, upright."""
    tags = getattr(image, "tag_v2", {})  # TIFF only
    white, inverted = _declared_white(image), tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO  # Pillow inverts 8 bits only
    return Deep(np.asarray(ImageOps.exif_transpose(image)), white, inverted)


def rgb_of_deep(deep: Deep, name: object, white_level: int) -> np.ndarray:
    """(H, W, 3) uint8 on white; `white_level` is white where the format declares none, `name` is for messages.

    Values above white become white. This is warned of once, and so is an image that fits into 14 bits where white is
    that of 16. Raises InputError for values without a known range: integers outside [0, 65535], floats outside [0, 1].
    """
    colour, top = deep.colour, deep.white or white_level
    low, high, most = colour.min(), colour.max(), 1 if colour.dtype.kind == "f" else FULL_RANGE
    if not (low >= 0 and high <= most):  # also when a value is NaN
        raise InputError(
            f"{name}: grey values from {low} to {high}, expected 0 to {most}, so which is white cannot be known; save "
            "it as 8 or 16-bit grey"
        )
    if colour.dtype.kind == "f":
        return three(np.rint((1 - colour if deep.inverted else colour) * 255).astype(np.uint8))
    if high > top:
        CLIPPED.warn(
            f"{name}: values up to {high}, but white is {top} (data.white_level); what is above is taken as white, "
            "here and in further images"
        )
    if top == FULL_RANGE and deep.white is None and high <= FULL_RANGE // 4:
        DARK.warn(
            f"{name}: values up to {high}, and white is {top}, so it is taken as dark, as are further such images; "
            "where its camera has fewer than 16 bits, set the value of white: white_level=4095 for 12 bits"
        )
    scale = np.minimum(np.arange(FULL_RANGE + 1) * (255 / top), 255)
    opacity = deep.opacity
    if opacity is not None and not is_unfilled(opacity, name):
        return _on_white(scale.astype(np.float32)[colour], opacity, top, deep.premultiplied)
    return three(np.rint(255 - scale if deep.inverted else scale).astype(np.uint8)[colour])


def _on_white(colour: np.ndarray, opacity: np.ndarray, top: int, premultiplied: bool) -> np.ndarray:
    """`colour` (H, W) or (H, W, 3) from 0 to 255 with its `opacity` (H, W) over white, (H, W, 3) uint8."""
    full = top if opacity.max() <= top else FULL_RANGE  # some fill it with their own white, others with all ones
    share = (opacity * np.float32(1 / full)).reshape(*opacity.shape, *(1,) * (colour.ndim - 2))
    mixed = (colour if premultiplied else colour * share) + 255 * (1 - share)
    return three(np.rint(np.minimum(mixed, 255)).astype(np.uint8))


def is_unfilled(opacity: np.ndarray, name: object) -> bool:
    """Whether an image is transparent everywhere, so that it is taken as opaque; warns once."""
    unfilled = not opacity.any()
    if unfilled:
        TRANSPARENT.warn(
            f"{name}: is transparent everywhere, so its opacity was never filled; its colours are taken as opaque, "
            "here and in further images"
        )
    return unfilled


def three(values: np.ndarray) -> np.ndarray:
    """Values (H, W) or (H, W, 3) as (H, W, 3)."""
    return values if values.ndim == 3 else np.repeat(values[:, :, None], 3, axis=2)


def _declared_white(image: Image.Image) -> int | None:
    """The white of deep grey that its format declares: 12-bit TIFF, and PGM, which Pillow scales to 16 bits."""
    if getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE) == (12,):
        return 4095
    declared = [tile.args[1] for tile in tiles_of(image) if tile.codec_name in ("ppm", "ppm_plain")]
    return FULL_RANGE if declared and declared[0] != FULL_RANGE else None  # 65535 is the default of writers


def _layers(image: Image.Image) -> tuple[list[Any], list[Any] | None] | None:
    """Tiles for decoding the upper and the lower bytes of 16-bit colour; None for any other image.

    Grey with opacity has no lower ones: its two pairs of bytes are decoded as four channels.
    """
    tiles = tiles_of(image) if image.format in ("PNG", "TIFF", "PPM") else []
    upper: list[Any] = []
    lower: list[Any] = []
    for tile in tiles:
        layout = _base_and_order(image, tile)
        if layout is None:
            return None
        base, order = layout
        if base == "LA":
            return [with_rawmode(tile, "RGBA")], None
        upper.append(with_rawmode(tile, f"{base};16{order}"))
        lower.append(with_rawmode(tile, f"{base};16{_OTHER[order]}"))
    return (upper, lower) if tiles else None


def _base_and_order(image: Image.Image, tile: Any) -> tuple[str, str] | None:
    """The channels and the byte order of 16-bit colour, such as RGBA and L; None for anything else."""
    rawmode = rawmode_of(tile)
    if tile.codec_name == "ppm" and tile.args == ("RGB", FULL_RANGE):
        return "RGB", "B"
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == _SEPARATE and tags.get(_BITS_PER_SAMPLE, (8,))[0] == 16:
        if tile.codec_name == "libtiff":
            raise ValueError("16-bit colour in separate, compressed planes, to be saved with its channels interleaved")
        return rawmode, "L" if tags.prefix == b"II" else "B"
    match = re.fullmatch(r"(RGB|RGBX|RGBA|RGBa|LA);16([LBN])", rawmode)
    return (match[1].replace("RGBa", "RGBA"), match[2]) if match else None
