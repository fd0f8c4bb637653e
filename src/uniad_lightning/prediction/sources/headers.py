"""How much memory an image will take, by its header. Decodes nothing."""

from pathlib import Path

from PIL import Image

from uniad_lightning.data.images.channels import is_tiff, tiff_header

# Bytes of a pixel at the peak of `read_image`, measured: 11 to 16 in all modes, with the returned image (3).
_EACH, _EACH_OF_WEBP = 16, 24
# Measured of 5 and 12 channels: at most 2.3 times the bytes of a pixel's channels and 4 more, of floats 40 more.
_TIMES_CHANNELS, _MORE, _MORE_OF_FLOATS = 3, 4, 40


def decoding_bytes(path: Path, max_pixels: int) -> int:
    """Bytes that reading an image takes at its peak, of a TIFF of several pages the first; 0 for one to be refused."""
    try:
        with path.open("rb") as file, Image.open(file) as image:
            pixels = image.width * image.height
            return 0 if pixels > max_pixels else pixels * (_EACH_OF_WEBP if image.format == "WEBP" else _EACH)
    except Image.DecompressionBombError:  # until Pillow's own limit has been raised to `max_pixels`
        return _EACH * max_pixels if max_pixels > (Image.MAX_IMAGE_PIXELS or 0) else 0
    except Exception:  # a damaged file makes Pillow raise nearly anything; `read_image` reports the error
        return _of_channels(path, max_pixels) if is_tiff(path) else 0


def _of_channels(path: Path, max_pixels: int) -> int:
    """The same of a TIFF that Pillow does not know, for which `data.channels` may be given."""
    try:
        header = tiff_header(path)
    except Exception:  # as above
        return 0
    each = _TIMES_CHANNELS * header.channels * header.kind.itemsize
    each += _MORE_OF_FLOATS if header.kind.kind == "f" else _MORE
    return 0 if header.pixels > max_pixels else header.pixels * each
