"""The one definition of decoding and resizing, shared by training, prediction and export.

Any picture file becomes RGB uint8: its first frame, turned upright by its EXIF orientation, deep grey scaled by its
range, transparency composed on white. Colour profiles are ignored. Resizing is bilinear and antialiased on each axis
by itself, as `torch.nn.functional.interpolate(mode="bilinear", antialias=True)` does it and ONNX can express it.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from uniad_lightning.data.cifar10 import read_packed
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError, one_line

DECODING = 2  # of this file's definition: raised with any change of what a pixel becomes, since features are kept by it
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # TIFF 6.0, section 8
_JPEG_HALF = 128
MAX_PIXELS = 100_000_000  # 300 MB once decoded; line-scan cameras stay below, a file made to fill the memory does not
DATA_SET_PIXELS = 178_956_970  # Pillow's own; a training has no setting to raise it


def read_record(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, 3) uint8 and defect mask (H, W) bool of a record, both as large as the picture.

    The mask is the union of the record's masks, empty without any. Raises InputError as `read_image` and `read_mask`.
    """
    image = read_image(record.image, max_pixels=DATA_SET_PIXELS)
    size = (image.shape[0], image.shape[1])
    mask = np.zeros(size, dtype=bool)
    for path in record.masks:
        mask |= read_mask(path, image_path=record.image, image_size=size)
    return image, mask


def read_image(path: Path | Packed, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decoded picture (H, W, 3) uint8 RGB, upright, writable.

    One of more than `max_pixels` is refused by what its header says, before anything is decoded.

    Grey of 16 bits is `round(v / 257)`, of 12 bits `round(v * 255 / 4095)`, of floats in [0, 1] `round(v * 255)`.
    Pillow itself cuts 16-bit *colour* to the upper byte, at most one level below that.

    Raises InputError when the file is missing, no picture, truncated or damaged, larger than `max_pixels`, or its grey
    has no known range (integers outside [0, 65535], floats outside [0, 1]).
    """
    if isinstance(path, Packed):
        return read_packed(path)
    return rgb_of(_open(path, max_pixels), path)


def rgb_of(image: Image.Image, path: Path | str) -> np.ndarray:
    """A Pillow image as `read_image` gives it, (H, W, 3) uint8, as it lies; `path` names it in errors."""
    if _is_deep(image):
        return np.repeat(_deep_grey(image, path)[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


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
    """What a mask marks as defective, (H, W) bool: every pixel that is not black.

    Values are not scaled, so 1 counts in 8 and in 16 bits. A palette counts by its colours, as a viewer shows them,
    because editors order palettes as they like. What is fully transparent is good, whatever its colour. JPEG cannot
    keep an edge sharp and leaves small values around it: there only a value of 128 or more counts.

    Raises InputError when the file cannot be decoded (as `read_image`).
    """
    mask = _open(path, DATA_SET_PIXELS)
    if _is_deep(mask):
        return _deep_values(mask)[0] != 0
    red, green, blue = mask.convert("RGB").split()
    brightest = np.asarray(ImageChops.lighter(ImageChops.lighter(red, green), blue))
    defective = brightest >= (_JPEG_HALF if mask.format == "JPEG" else 1)
    if mask.has_transparency_data:
        defective &= np.asarray(mask.convert("RGBA").getchannel("A")) > 0
    return defective


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` (H, W, 3) uint8 at `size` (height, width), bilinear; antialiased along an axis that shrinks.

    An image that has the size already is returned as it is, not copied.
    """
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    # Across, then down: Pillow 13 takes tall pictures the other way round, older ones never.
    across = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    return np.array(across.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`mask` (H, W) bool at `size` (height, width): each pixel takes the source pixel under its centre.

    A small defect can vanish. A mask that has the size already is returned as it is, not copied.
    """
    if mask.shape == tuple(size):
        return mask
    height, width = size
    grey = Image.fromarray(mask.astype(np.uint8))
    return np.array(grey.resize((width, height), Image.Resampling.NEAREST), dtype=bool)


def refuse_above(max_pixels: int, size: tuple[int, int], path: Path | str) -> None:
    """Raises InputError for a picture or video frame of more than `max_pixels`; `size` is (width, height)."""
    if size[0] * size[1] > max_pixels:
        raise _too_large(path, f"{size[0]} x {size[1]} pixels are {size[0] * size[1] / 1e6:.1f} megapixels", max_pixels)


def _too_large(path: Path | str, found: str, max_pixels: int) -> InputError:
    return InputError(
        f"{path}: {found}, more than the limit of {max_pixels / 1e6:g}; save it smaller, or raise max_megapixels where "
        "there is that setting"
    )


def _open(path: Path, max_pixels: int) -> Image.Image:
    """First frame of the file, loaded and upright."""
    # Pillow refuses at twice its own limit, which is for the whole process: ours alone is to count, so that one is
    # only ever raised, and stays as the guard of what a file may embed.
    if Image.MAX_IMAGE_PIXELS is not None and max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = max_pixels
    try:
        # By its path, Pillow would map an uncompressed TIFF into memory, and mixes up its rows if the tags say it lies
        # on its side (13.0; orientations 5 to 8).
        with path.open("rb") as file, Image.open(file) as image:
            refuse_above(max_pixels, image.size, path)
            ImageOps.exif_transpose(image, in_place=True)  # loads the pixels
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a picture") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: {_what_else(path)}; save it as PNG or delete it") from None
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d{4,}", str(error))
        raise _too_large(path, f"{int(pixels[0]) / 1e6:.1f} megapixels" if pixels else "huge", max_pixels) from None
    except Exception as error:  # a damaged file makes Pillow's decoders raise nearly anything
        raise InputError(f"{path}: the picture cannot be decoded ({one_line(error)}); replace or delete it") from None
    return image


def _what_else(path: Path) -> str:
    """What a file is that is no picture."""
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        return "the file is empty"
    return f"not a picture in a format that Pillow knows (it begins with {head!r})"


def _is_deep(image: Image.Image) -> bool:
    """Whether the picture is grey of more than 8 bits, which Pillow converts by cutting off at 255."""
    return image.mode.startswith(("I", "F"))


def _deep_values(image: Image.Image) -> tuple[np.ndarray, int]:
    """Values (H, W) of a deep grey picture, 0 = black, and the value of full brightness in its format.

    A transparent value (PNG tRNS) is not regarded.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})  # TIFF only
    # Integers of 16 bits open in mode I or I;16, depending on the format.
    integer_top = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    top = 1 if image.mode == "F" else integer_top
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow turns only 8 bits round
        values = top - values
    return values, top


def _deep_grey(image: Image.Image, path: Path | str) -> np.ndarray:
    """Deep grey picture as (H, W) uint8, scaled by the range of its format."""
    values, top = _deep_values(image)
    if not (values.min() >= 0 and values.max() <= top):  # also when a value is NaN
        raise InputError(
            f"{path}: grey values from {values.min()} to {values.max()}, expected 0 to {top}, "
            "so which is white cannot be known; save it as 8 or 16-bit grey"
        )
    if image.mode == "F":
        return np.rint(values * 255).astype(np.uint8)
    return np.rint(np.arange(top + 1) * (255 / top)).astype(np.uint8)[values]
