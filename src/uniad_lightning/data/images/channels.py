"""Images of more than three channels: which of a file's channels are taken as red, green and blue (`data.channels`).

Pillow opens few TIFFs of other channels than RGB, so tifffile reads them: channels interleaved, in planes, or one in
each page. Of other formats the channels are those that Pillow gives.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from uniad_lightning.errors import InputError, TemporaryError, one_line

logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it logs of a damaged file is said by the error

Channels = tuple[int, ...]  # places in a file, from 0: one for grey, or those of red, green and blue
MOST = 64  # channels of a file
_BYTES = 8  # of a pixel at most for each that `max_pixels` allows: as four channels of 16 bits
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, either byte order
_ORIENTATION = 274


def check_channels(channels: Any) -> Channels | None:
    """`channels` as a tuple, None for a file's own colours; InputError for anything but one or three of its places."""
    if channels is None:
        return None
    given = tuple(channels) if isinstance(channels, Sequence) and not isinstance(channels, str) else ()
    whole = all(isinstance(place, int) and not isinstance(place, bool) and 0 <= place < MOST for place in given)
    if len(given) not in (1, 3) or not whole:
        raise InputError(
            f"data.channels={channels}: expected the places of red, green and blue among a file's channels, counted "
            "from 0, such as [2,1,0], or one alone, as [3]"
        )
    return given


def is_tiff(path: Path) -> bool:
    """Whether a file begins as a TIFF; False for one that cannot be read, and for a pipe, which would be waited for."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(4) in _TIFF
    except OSError:
        return False


def picked(values: np.ndarray, channels: Channels, name: object) -> np.ndarray:
    """`channels` of an image (H, W) or (H, W, C): (H, W) for one, (H, W, 3) for three.

    Raises InputError for an image of too few.
    """
    values = values[..., None] if values.ndim == 2 else values
    count = values.shape[2]
    if max(channels) >= count:
        raise InputError(
            f"{name}: has {count} channel{'s' if count > 1 else ''}, and data.channels={list(channels)} takes number "
            f"{max(channels)}, counted from 0; correct data.channels, or leave such images out"
        )
    return values[..., channels[0]] if len(channels) == 1 else np.ascontiguousarray(values[..., list(channels)])


def tiff_channels(path: Path, max_pixels: int) -> np.ndarray:
    """The first image of a TIFF with all its channels, (H, W, C), upright.

    Raises InputError for more than `max_pixels`, a stack of several axes, and values that are neither 8 or 16-bit
    integers nor floats; anything else for a damaged file.
    """
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes, shape = series.axes, series.shape
        if axes.count("Y") != 1 or axes.count("X") != 1 or len(axes) > 3:
            raise InputError(f"{path}: its axes are {axes}, of lengths {shape}; expected height, width and channels")
        height, width = shape[axes.index("Y")], shape[axes.index("X")]
        if series.size * series.dtype.itemsize > _BYTES * max_pixels or height * width > max_pixels:
            raise InputError(
                f"{path}: {width} x {height} pixels of {series.size // (height * width)} channels, more than the limit "
                f"of {max_pixels / 1e6:g} megapixels; save it smaller, or raise max_megapixels where there is that "
                "setting"
            )
        if series.dtype not in (np.uint8, np.uint16, np.float32, np.float64):
            raise InputError(f"{path}: has values of {series.dtype}; expected 8 or 16-bit integers, or floats")
        tag = file.pages[0].aspage().tags.get(_ORIENTATION)
        try:
            values = series.asarray()
        except (ValueError, KeyError) as error:
            if "imagecodecs" in str(error):  # tifffile decodes no compression but Deflate, LZMA and PackBits by itself
                raise InputError(
                    f"{path}: {one_line(error)}; pip install imagecodecs, or save it without compression"
                ) from None
            raise
    values = np.moveaxis(values, (axes.index("Y"), axes.index("X")), (0, 1)).reshape(height, width, -1)
    return _upright(values, int(tag.value) if tag else 1)


class Header(NamedTuple):
    """What a TIFF says of its first image: how many pixels and channels it has, and the type of its values."""

    pixels: int
    channels: int
    kind: np.dtype


def tiff_header(path: Path) -> Header:
    """The header of a TIFF. Raises anything for a damaged one."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        lengths = dict(zip(series.axes, series.shape, strict=True))
        pixels = lengths["Y"] * lengths["X"]
        return Header(pixels, series.size // pixels, series.dtype)


@contextmanager
def naming_channels(path: Path) -> Iterator[None]:
    """Turns the error of a TIFF inside into one that names `data.channels`, where its channels may be the reason."""
    try:
        yield
    except Exception as error:  # what Pillow raises of a file that it does not know differs
        if isinstance(error, TemporaryError) or not is_tiff(path):
            raise
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                count = tiff_header(path).channels
        except Exception:  # it is damaged, as the first error says
            raise error from None
        if count in (1, 3):
            raise
        setting = "data.channels=[0] would take the first as grey"
        if count > 2:
            setting = "data.channels=[2,1,0] would take the third, second and first as red, green and blue"
        raise InputError(f"{path}: has {count} channels, which are no colours that can be known; {setting}") from None


def pillow_channels(image: Image.Image) -> np.ndarray:
    """The channels of a loaded image of 8 bits, (H, W, C); a palette's colours are red, green and blue."""
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK"):
        return np.asarray(image)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the orientation of TIFF 6.0, section 8: which sides of the scene row 0 and column 0 are."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return values[:, ::-1] if orientation in (2, 3, 6, 7) else values
