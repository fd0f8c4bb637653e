"""The raw modes of Pillow's decoders, which describe the layout of bytes in a file, and decoding with another one."""

from typing import Any

from PIL import Image, ImageOps


def tiles_of(image: Image.Image) -> list[Any]:
    """The tiles of an image that are not decoded yet, none once it is loaded."""
    return list(getattr(image, "tile", []))


def rawmode_of(tile: Any) -> str:
    """The raw mode of a tile in Pillow's notation, such as `RGB;16B`; empty where it has none."""
    first = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
    return first if isinstance(first, str) else ""


def with_rawmode(tile: Any, rawmode: str) -> Any:
    """`tile` with its bytes to be decoded as `rawmode`."""
    if tile.codec_name == "ppm":  # scales in Python, pixel by pixel
        return tile._replace(codec_name="raw", args=(rawmode, 0, 1))
    return tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)


def decoded(image: Image.Image, tiles: list[Any]) -> Image.Image:
    """`image`, which is opened and not loaded yet, decoded by `tiles`, upright."""
    image.tile = tiles  # type: ignore[attr-defined]
    ImageOps.exif_transpose(image, in_place=True)  # loads the pixels
    return image
