"""10, 12 and 16 bits in files of 16: every level is kept, in grey and colour, and what is white is one number."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.pictures import channels_tiff, png, tiff
from uniad_lightning.data.images import deep_images as deep
from uniad_lightning.data.images.decoding import peak_of, read_image, rgb_of
from uniad_lightning.data.images.white_level import check_white_level, find_white_level
from uniad_lightning.data.records import Packed, Record
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import rgb_from_array

RNG = np.random.default_rng(2)


@pytest.fixture(autouse=True)
def _unsaid() -> Iterator[None]:
    deep.CLIPPED.reset()
    yield
    deep.CLIPPED.reset()


def values(top: int, channels: int) -> np.ndarray:
    """(16, 20, channels) uint16 that take every value from black to white, or many of them."""
    pixels = RNG.integers(0, top + 1, (16, 20, channels))
    pixels[0, 0], pixels[0, 1] = 0, top
    return pixels.astype(np.uint16)


def grey_png(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels[..., 0]).save(path)
    return path


def many_png(path: Path, pixels: np.ndarray) -> Path:
    colour = {2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    return png(path, pixels.astype(">u2").tobytes(), size=pixels.shape[:2], depth=16, colour=colour)


def pgm(path: Path, pixels: np.ndarray, declared: int = 65535) -> Path:
    """PGM or PPM, which says its largest value."""
    kind = 5 if pixels.shape[2] == 1 else 6
    head = f"P{kind}\n{pixels.shape[1]} {pixels.shape[0]}\n{declared}\n"
    path.write_bytes(head.encode() + pixels.astype(">u2").tobytes())
    return path


WRITERS = {
    "grey png": (1, grey_png),
    "grey tiff": (1, lambda path, pixels: grey_png(path.with_suffix(".tif"), pixels)),
    "grey pgm": (1, pgm),
    "colour ppm": (3, pgm),
    "colour png": (3, many_png),
    "colour tiff": (3, lambda path, pixels: channels_tiff(path, pixels)),
    "colour tiff, deflated": (3, lambda path, pixels: channels_tiff(path, pixels, deflate=True)),
    "colour tiff, planes": (3, lambda path, pixels: channels_tiff(path, pixels, planes=True)),
}


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_level_of_any_depth_is_kept(tmp_path: Path, kind: str, top: int) -> None:
    channels, write = WRITERS[kind]
    pixels = values(top, channels)
    path = write(tmp_path / "part.png", pixels)
    expected = np.rint(pixels.astype(int) * 255 / top).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path, white_level=top), np.broadcast_to(expected, (16, 20, 3)))
    assert peak_of(path) == top


@pytest.mark.parametrize("filled", [4095, 65535])
@pytest.mark.parametrize("channels", [2, 4])
def test_opacity_is_of_the_cameras_range_or_of_all_bits(tmp_path: Path, channels: int, filled: int) -> None:
    pixels = values(4095, channels)
    pixels[..., -1] = filled
    path = many_png(tmp_path / "part.png", pixels)
    expected = np.rint(pixels[..., :-1].astype(int) * 255 / 4095)
    decoded = read_image(path, white_level=4095)
    assert np.abs(decoded - np.broadcast_to(expected, (16, 20, 3))).max() <= 1
    assert peak_of(path) == 4095


def test_declared_ranges_count_whatever_the_level(tmp_path: Path) -> None:
    pixels = values(4095, 1)
    expected = np.broadcast_to(np.rint(pixels.astype(int) * 255 / 4095), (16, 20, 3))
    twelve = np.array([[0, 4095], [2048, 0]])
    packed = tiff(tmp_path / "camera.tif", bytes.fromhex("000fff" + "800000"), size=(2, 2), depth=12)
    for level in (255, 1023, 65535):
        path = pgm(tmp_path / "a.pgm", pixels, declared=4095)
        assert np.abs(read_image(path, white_level=level) - expected).max() <= 1
        np.testing.assert_array_equal(read_image(packed, white_level=level)[..., 0], np.rint(twelve * 255 / 4095))
        assert peak_of(path) == peak_of(packed) == 0
    floats = tmp_path / "float.tif"
    Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)).save(floats)
    assert read_image(floats, white_level=1023)[0, :, 0].tolist() == [0, 255]
    assert peak_of(floats) == 0


def test_an_int32_tiff_of_eight_bits(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.int32).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", white_level=255)[..., 0], pixels)


def test_twelve_bits_whose_zero_is_white(tmp_path: Path) -> None:
    pixels = values(4095, 1)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "xray.tif", tiffinfo={262: 0})
    expected = np.rint((4095 - pixels.astype(int)) * 255 / 4095)
    np.testing.assert_array_equal(read_image(tmp_path / "xray.tif", white_level=4095)[..., :1], expected)


def test_values_above_white_are_white_and_said_once(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    bright = grey_png(tmp_path / "bright.png", values(5000, 1))
    for path in (bright, grey_png(tmp_path / "brighter.png", values(60000, 1))):
        assert read_image(path, white_level=4095)[0, 1].tolist() == [255, 255, 255]
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert f"uniad: warning: {bright}: values up to 5000, but white is 4095" in said[0]


def test_arrays_and_pillow_images_have_the_same_white() -> None:
    for channels in (1, 3):
        pixels = values(4095, channels)
        expected = np.broadcast_to(np.rint(pixels.astype(int) * 255 / 4095), (16, 20, 3))
        np.testing.assert_array_equal(rgb_from_array(pixels, 4095), expected)
    grey = values(4095, 1)[..., 0]
    decoded = rgb_of(Image.fromarray(grey), "image", white_level=4095)[..., 0]
    np.testing.assert_array_equal(decoded, np.rint(grey.astype(int) * 255 / 4095))


def record(path: Path) -> Record:
    return Record(path, (), "part", "good", 0)


@pytest.mark.parametrize(
    ("peak", "level"),
    [(200, 255), (256, 1023), (1023, 1023), (1024, 4095), (4095, 4095), (4096, 16383), (16384, 65535), (65535, 65535)],
)
def test_the_level_is_the_smallest_that_holds_all_train_images(tmp_path: Path, peak: int, level: int) -> None:
    paths = [grey_png(tmp_path / f"{top}.png", values(top, 1)) for top in (3, peak, 7)]
    Image.fromarray(np.full((4, 4), 255, dtype=np.uint8)).save(tmp_path / "eight.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    others = [tmp_path / "eight.png", tmp_path / "broken.png"]
    records = [record(path) for path in (*others, *paths)]
    assert find_white_level(records, threads=2) == level


def test_there_is_no_level_without_deep_images(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    path = tmp_path / "eight.png"
    Image.fromarray(np.full((40, 40, 3), 255, dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:60])  # its header is enough
    packed = Record(Packed(tmp_path / "none", 3), (), "part", "good", 0)
    assert find_white_level([record(path), packed], threads=1) is None
    assert find_white_level([], threads=1) is None
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("level", ["auot", 0, -1, 65536, 4095.0, True, None])
def test_other_levels_are_refused(level: object) -> None:
    with pytest.raises(InputError, match=f"data.white_level={level}: expected auto, or the value that is white"):
        check_white_level(level)  # type: ignore[arg-type]
