"""Decoding, shared by training, prediction and export.

Any image file becomes RGB uint8: its first frame, turned upright by its EXIF orientation, more than 8 bits scaled by
their range, transparency composed on white. Colour profiles are ignored.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps

from uniad_lightning.data.images.channels import (
    Channels,
    is_tiff,
    naming_channels,
    picked,
    pillow_channels,
    tiff_channels,
    tiff_header,
)
from uniad_lightning.data.images.cifar10_batches import read_packed
from uniad_lightning.data.images.deep_images import (
    FULL_RANGE,
    Deep,
    deep_grey,
    is_deep,
    is_unfilled,
    read_deep,
    rgb_of_deep,
    three,
)
from uniad_lightning.data.images.image_file import DATA_SET_PIXELS, MAX_PIXELS, faults_of, opened, refuse_slow
from uniad_lightning.data.images.raw_bytes import decoded, rawmode_of, tiles_of, with_rawmode
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError

DECODING = 3  # version of this file: raised with every change of pixel values, since cached features depend on it
_JPEG_HALF = 128


def read_record(
    record: Record, *, white_level: int = FULL_RANGE, channels: Channels | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and defect mask (H, W) bool of a record, both at the image's size.

    The mask is the union of the record's masks, empty without any. Raises InputError as `read_image` and `read_mask`.
    """
    image = read_image(record.image, max_pixels=DATA_SET_PIXELS, white_level=white_level, channels=channels)
    size = (image.shape[0], image.shape[1])
    mask = np.zeros(size, dtype=bool)
    for path in record.masks:
        mask |= read_mask(path, image_path=record.image, image_size=size)
    return image, mask


def read_image(
    path: Path | Packed,
    *,
    max_pixels: int = MAX_PIXELS,
    white_level: int = FULL_RANGE,
    channels: Channels | None = None,
) -> np.ndarray:
    """Decoded image (H, W, 3) uint8 RGB, upright, writable.

    More than `max_pixels` in the header are refused before anything is decoded.

    A value v of more than 8 bits, grey or colour, is `round(v * 255 / white_level)`, or 255 above: 16 bits are a
    container, in which cameras store 10 or 12. Where the format declares its range (12-bit TIFF, PGM of
    another maximum than 65535), that counts instead. Floats in [0, 1] are `round(v * 255)`.

    With `channels` those of the file are red, green and blue (or one is grey), whatever the file says of them, and none
    is its opacity.

    An image that is transparent everywhere counts as opaque, since its alpha channel was never filled. This is warned
    of once, and so are values above `white_level`.

    Raises InputError when the file is missing, no image, no regular file, truncated or damaged, larger than
    `max_pixels`, transparent and black everywhere, or its grey has no known range (integers outside [0, 65535], floats
    outside [0, 1]), or has too few `channels`; TemporaryError when the system cannot read it now.
    """
    if isinstance(path, Packed):
        return read_packed(path) if channels is None else three(picked(read_packed(path), channels, path))
    if channels is not None:
        with faults_of(path, max_pixels):
            return rgb_of_channels(_channels(path, max_pixels), channels, path, white_level)
    with faults_of(path, max_pixels), naming_channels(path):
        loaded = _load(path, max_pixels)
        rgb = _rgb(loaded, path, white_level)
        if not rgb.any() and _is_transparent(loaded):
            raise InputError(
                f"{path}: is transparent everywhere and has no colours left, which WebP drops below transparency; save "
                "it again without transparency"
            )
        return rgb


def rgb_of_channels(values: np.ndarray, channels: Channels, name: object, white_level: int) -> np.ndarray:
    """`channels` of an image (H, W) or (H, W, C) of 8 or 16 bits or floats, as (H, W, 3) uint8."""
    taken = picked(values, channels, name)
    return three(taken) if taken.dtype == np.uint8 else rgb_of_deep(Deep(taken), name, white_level)


def rgb_of(image: Image.Image, name: str, *, white_level: int = FULL_RANGE) -> np.ndarray:
    """A Pillow image as `read_image` gives a file, (H, W, 3) uint8, upright; `name` is for messages.

    Of 16-bit colour Pillow has kept only the upper byte. Raises InputError for one that cannot be decoded.
    """
    with faults_of(name):
        upright = deep_grey(image) if image.mode.startswith(("I", "F")) else ImageOps.exif_transpose(image)
        return _rgb(upright, name, white_level)


def peak_of(path: Path, channels: Channels | None = None) -> int:
    """The largest value of an image of more than 8 bits whose format does not declare its range; 0 for any other.

    Of another image only the header is read; where `channels` are given, those count, and the header alone is read of
    TIFFs. Raises InputError as `read_image`.
    """
    if channels is not None:
        with faults_of(path, DATA_SET_PIXELS):
            if is_tiff(path) and tiff_header(path).kind != np.uint16:
                return 0
            values = _channels(path, DATA_SET_PIXELS)
            return int(picked(values, channels, path).max()) if values.dtype == np.uint16 else 0
    with opened(path, DATA_SET_PIXELS) as image:
        deep = read_deep(image, lambda: opened(path, DATA_SET_PIXELS)) if is_deep(image) else None
        if deep is None or deep.white is not None or deep.values.dtype.kind == "f":
            return 0
        return int(deep.colour.max())


def read_mask(path: Path, *, image_path: Path | Packed, image_size: tuple[int, int]) -> np.ndarray:
    """Defect mask (H, W) bool of an image, as `read_marks`.

    `image_size` is (height, width) of the decoded, upright image and `image_path` its file.

    Raises InputError when the file cannot be decoded (as `read_image`) or its size differs from the image's.
    """
    marks = read_marks(path)
    if marks.shape != image_size:
        raise InputError(
            f"{path}: the mask has {marks.shape[0]} x {marks.shape[1]} pixels (height x width) and its image "
            f"{image_path} {image_size[0]} x {image_size[1]}; save the mask at the size of the upright image"
        )
    return marks


def read_marks(path: Path) -> np.ndarray:
    """The defective pixels of a mask, (H, W) bool: all that are not black.

    Values are not scaled, so 1 counts in 8 and in 16 bits. Palette images count by their colours, not their indices.
    Fully transparent pixels are good, whatever their colour. A mask that is transparent everywhere is taken as opaque,
    as an image is, unless that would mark every pixel, as with an empty layer of an editor. JPEG leaves small values
    around edges: there only a value of 128 or more counts.

    Raises InputError when the file cannot be decoded (as `read_image`).
    """
    with faults_of(path, DATA_SET_PIXELS):
        mask = _load(path, DATA_SET_PIXELS)
        if isinstance(mask, Deep):
            return _not_transparent(_marks_of_deep(mask), mask.opacity, path)
        colour, opacity = _split(mask)
        red, green, blue = colour.split()
        brightest = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
        defective = brightest >= (_JPEG_HALF if mask.format in ("JPEG", "MPO") else 1)
        return _not_transparent(defective, None if opacity is None else np.asarray(opacity), path)


def _channels(path: Path, max_pixels: int) -> np.ndarray:
    """All channels of a file, (H, W) or (H, W, C), upright; not those of a format's declared range."""
    if is_tiff(path):
        return tiff_channels(path, max_pixels)
    loaded = _load(path, max_pixels)
    return loaded.values if isinstance(loaded, Deep) else pillow_channels(loaded)


def _load(path: Path, max_pixels: int) -> Image.Image | Deep:
    """First frame of the file, loaded and upright."""
    with opened(path, max_pixels) as image:
        deep = read_deep(image, lambda: opened(path, max_pixels))
        if deep is not None:
            return deep
        refuse_slow(image, path)
        tiles = tiles_of(image)
        ImageOps.exif_transpose(image, in_place=True)  # loads the pixels
    if any("RGBa" in rawmode_of(tile) for tile in tiles) and image.getchannel("A").getextrema() == (0, 0):
        with opened(path, max_pixels) as image:  # else Pillow divides the colours by that 0
            return decoded(image, [with_rawmode(tile, rawmode_of(tile).replace("RGBa", "RGBA")) for tile in tiles])
    return image


def _rgb(image: Image.Image | Deep, name: Path | str, white_level: int) -> np.ndarray:
    """(H, W, 3) uint8 of a loaded image."""
    if isinstance(image, Deep):
        return rgb_of_deep(image, name, white_level)
    colour, opacity = _split(image)
    if opacity is not None and not is_unfilled(np.asarray(opacity), name):
        colour.putalpha(opacity)
        colour = Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
    return np.array(colour)


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour (RGB) and opacity (L, None without) of an image of 8 bits."""
    if not image.has_transparency_data:
        return image.convert("RGB"), None
    straight = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    opacity = straight.getchannel("A")
    if image.mode in ("La", "RGBa") and opacity.getextrema() == (0, 0):  # premultiplied: colours divided by 0
        bands = image.split()[:-1]
        straight = Image.merge("RGB", bands * 3 if len(bands) == 1 else bands)
    return straight.convert("RGB"), opacity


def _is_transparent(image: Image.Image | Deep) -> bool:
    """Whether all pixels are fully transparent."""
    opacity = image.opacity if isinstance(image, Deep) else _split(image)[1]
    return opacity is not None and not np.asarray(opacity).any()


def _marks_of_deep(mask: Deep) -> np.ndarray:
    """The pixels of a mask of more than 8 bits that are not black, (H, W) bool."""
    black = 0 if not mask.inverted else 1 if mask.values.dtype.kind == "f" else mask.white or FULL_RANGE
    defective = mask.colour != black
    return defective.any(axis=2) if defective.ndim == 3 else defective


def _not_transparent(defective: np.ndarray, opacity: np.ndarray | None, path: Path) -> np.ndarray:
    """`defective` without transparent pixels, both (H, W), as in `read_marks`."""
    if opacity is None or not defective.any():
        return defective
    if defective.all() and not opacity.any():
        return np.zeros_like(defective)
    return defective if is_unfilled(opacity, path) else defective & (opacity > 0)
