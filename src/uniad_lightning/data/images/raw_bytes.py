"""How the bytes of an image file are taken to lie: what Pillow's decoders are told, in place of what it tells them."""

from typing import Any

from PIL import Image, ImageOps


def tiles_of(image: Image.Image) -> list[Any]:
    """What is left to be decoded of an image: nothing of one that is loaded."""
    return list(getattr(image, "tile", []))


def rawmode_of(tile: Any) -> str:
    """How the bytes of a tile lie, in Pillow's words such as `RGB;16B`; empty where it says nothing."""
    first = tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args
    return first if isinstance(first, str) else ""


def told(tile: Any, rawmode: str) -> Any:
    """`tile` with its bytes taken to lie as `rawmode` says."""
    if tile.codec_name == "ppm":  # scales in Python, pixel by pixel
        return tile._replace(codec_name="raw", args=(rawmode, 0, 1))
    return tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode)


def decoded(image: Image.Image, tiles: list[Any]) -> Image.Image:
    """`image`, opened and not loaded yet, with what the decoders make of `tiles`, upright."""
    image.tile = tiles  # type: ignore[attr-defined]
    ImageOps.exif_transpose(image, in_place=True)  # loads the pixels
    return image
