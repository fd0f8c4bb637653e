"""An image that is transparent everywhere: nobody filled its fourth channel, so it counts as opaque; masks as well."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.pictures import channels_tiff, needs_pillow_13, png
from uniad_lightning.data.images import deep_images as deep
from uniad_lightning.data.images.decoding import read_image, read_marks, rgb_of
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import rgb_from_array

RNG = np.random.default_rng(11)
COLOUR = RNG.integers(1, 256, (8, 8, 3), dtype=np.uint8)
GREY = COLOUR[..., :1]
CLEAR = np.zeros((8, 8, 1), dtype=np.uint8)
UNFILLED = np.dstack([COLOUR, CLEAR])
SAID = "is transparent everywhere, so its opacity was never filled"


@pytest.fixture(autouse=True)
def _unsaid() -> Iterator[None]:
    deep.TRANSPARENT.reset()
    yield
    deep.TRANSPARENT.reset()


def bmp_v5(path: Path, pixels: np.ndarray) -> Path:
    """A BMP of `pixels` (H, W, 4) with a mask for opacity, which Pillow reads and does not write."""
    height, width = pixels.shape[:2]
    data = pixels[::-1][..., [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 124, width, height, 1, 32, 3, len(data), 2835, 2835, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
    start = 14 + 124
    file = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header.ljust(124, b"\0") + data
    path.write_bytes(file)
    return path


def palette(path: Path, opacity: bytes) -> Path:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    image.putpalette(COLOUR.tobytes())
    image.save(path, transparency=opacity)
    return path


def plain(path: Path, pixels: np.ndarray, **options: object) -> Path:
    kinds = {2: "LA", 4: "RGBA"}
    Image.frombytes(kinds[pixels.shape[2]], (8, 8), pixels.tobytes()).save(path, **options)
    return path


def deep_png(path: Path, pixels: np.ndarray) -> Path:
    colour = {2: 4, 4: 6}[pixels.shape[2]]
    return png(path, (pixels.astype(">u2") * 257).tobytes(), size=(8, 8), depth=16, colour=colour)


GREY_UNFILLED = np.dstack([GREY, CLEAR])
FILES = {
    "png": lambda folder: plain(folder / "a.png", UNFILLED),
    "tiff": lambda folder: plain(folder / "a.tif", UNFILLED),
    "webp": lambda folder: plain(folder / "a.webp", UNFILLED, lossless=True, exact=True),
    "bmp v5": lambda folder: bmp_v5(folder / "a.bmp", UNFILLED),
    "tga": lambda folder: plain(folder / "a.tga", UNFILLED),
    "ico": lambda folder: plain(folder / "a.ico", UNFILLED, sizes=[(8, 8)], bitmap_format="bmp"),
    "tiff, opacity": lambda folder: channels_tiff(folder / "a.tif", UNFILLED, extra=2),
    "tiff, premultiplied": lambda folder: channels_tiff(folder / "a.tif", UNFILLED, extra=1),
    "tiff, premultiplied, deflated": lambda folder: channels_tiff(folder / "a.tif", UNFILLED, extra=1, deflate=True),
    "tiff, unknown": lambda folder: channels_tiff(folder / "a.tif", UNFILLED),
    "palette": lambda folder: palette(folder / "a.png", bytes(64)),
    "png of 16 bits": lambda folder: deep_png(folder / "a.png", UNFILLED),
    "tiff of 16 bits": lambda folder: channels_tiff(folder / "a.tif", UNFILLED * np.uint16(257), extra=2),
    "tiff of 16 bits, premultiplied": lambda folder: channels_tiff(
        folder / "a.tif", UNFILLED * np.uint16(257), extra=1
    ),
}
GREY_FILES = {
    "png": lambda folder: plain(folder / "a.png", GREY_UNFILLED),
    "tiff": lambda folder: channels_tiff(folder / "a.tif", GREY_UNFILLED, extra=2),
    "png of 16 bits": lambda folder: deep_png(folder / "a.png", GREY_UNFILLED),
}


@pytest.mark.parametrize("kind", FILES)
def test_an_image_transparent_everywhere_is_opaque(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture) -> None:
    path = FILES[kind](tmp_path)
    np.testing.assert_array_equal(read_image(path), COLOUR)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"uniad: warning: {path}: {SAID}" in said[0]


@needs_pillow_13
def test_premultiplied_grey_transparent_everywhere_is_opaque(tmp_path: Path) -> None:
    file = channels_tiff(tmp_path / "a.tif", GREY_UNFILLED, extra=1)
    np.testing.assert_array_equal(read_image(file), np.repeat(GREY, 3, axis=2))


@pytest.mark.parametrize("kind", GREY_FILES)
def test_grey_transparent_everywhere_is_opaque(tmp_path: Path, kind: str) -> None:
    np.testing.assert_array_equal(read_image(GREY_FILES[kind](tmp_path)), np.repeat(GREY, 3, axis=2))


@needs_pillow_13
def test_partial_opacity_stays_composed_on_white(tmp_path: Path) -> None:
    opacity = CLEAR.copy()
    opacity[3, 4] = 1
    decoded = read_image(plain(tmp_path / "a.png", np.dstack([COLOUR, opacity])))
    assert (decoded[opacity[..., 0] == 0] == 255).all()
    grey = channels_tiff(tmp_path / "a.tif", np.dstack([GREY, np.full_like(GREY, 255)]), extra=1)
    np.testing.assert_array_equal(read_image(grey), np.repeat(GREY, 3, axis=2))


def test_it_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for name in ("a.png", "b.png", "c.png"):
        read_image(plain(tmp_path / name, UNFILLED))
    said = capfd.readouterr().err
    assert said.count(SAID) == 1
    assert "a.png" in said


def test_it_is_said_once_by_forked_processes_too(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    import multiprocessing

    path = plain(tmp_path / "a.png", UNFILLED)
    for _ in range(3):
        process = multiprocessing.get_context("fork").Process(target=read_image, args=(path,))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    read_image(path)
    assert capfd.readouterr().err.count(SAID) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_arrays_and_pillow_images_that_are_transparent_everywhere(dtype: type) -> None:
    top = {np.uint8: 1, np.uint16: 257, np.float32: np.float32(1 / 255)}[dtype]
    np.testing.assert_array_equal(rgb_from_array((UNFILLED * dtype(1) * top).astype(dtype)), COLOUR)


@pytest.mark.parametrize("mode", ["RGBA", "RGBa", "LA", "La"])
def test_pillow_images_that_are_transparent_everywhere(mode: str) -> None:
    pixels, expected = (UNFILLED, COLOUR) if mode.startswith("RGB") else (GREY_UNFILLED, np.repeat(GREY, 3, axis=2))
    np.testing.assert_array_equal(rgb_of(Image.frombytes(mode, (8, 8), pixels.tobytes()), "image"), expected)


def test_a_webp_without_its_colours_is_refused(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.webp", UNFILLED, lossless=True)  # not `exact`: what is transparent is made black
    with pytest.raises(InputError, match=r"a\.webp: is transparent everywhere and has no colours left"):
        read_image(path)
    assert not read_image(plain(tmp_path / "black.png", np.dstack([COLOUR * 0, CLEAR + 255]))).any()


SPOT = np.zeros((8, 8), dtype=bool)
SPOT[2:4, 3:7] = True


@pytest.mark.parametrize("top", [1, 255, 257, 65535])
def test_a_mask_transparent_everywhere_keeps_its_defect(tmp_path: Path, top: int) -> None:
    marks = np.dstack([SPOT * top] * 3 + [SPOT * 0])
    path = tmp_path / "mask.png"
    if top > 255:
        png(path, marks.astype(">u2").tobytes(), size=(8, 8), depth=16, colour=6)
    else:
        plain(path, marks.astype(np.uint8))
    np.testing.assert_array_equal(read_marks(path), SPOT)


def test_an_empty_layer_marks_nothing(tmp_path: Path) -> None:
    for value in (0, 255):
        path = plain(tmp_path / "layer.png", np.dstack([np.full_like(COLOUR, value), CLEAR]))
        assert not read_marks(path).any()


def test_a_mask_of_sixteen_bit_colour_counts_the_lower_byte(tmp_path: Path) -> None:
    marks = np.dstack([SPOT * 0, SPOT * 3, SPOT * 0]).astype(">u2")
    path = png(tmp_path / "mask.png", marks.tobytes(), size=(8, 8), depth=16, colour=2)
    np.testing.assert_array_equal(read_marks(path), SPOT)
