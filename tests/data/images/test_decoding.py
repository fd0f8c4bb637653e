"""Decoding pixel by pixel for each kind of file, masks, and resizing against torch."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from support.pictures import header_only, png, saved, tiff
from uniad_lightning.data.images.decoding import read_image, read_marks, read_mask
from uniad_lightning.data.images.resizing import resize, resize_mask
from uniad_lightning.errors import InputError

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA[0, :3] = 0, 128, 255
DEEP = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
DEEP[0] = 0, 1, 128, 129, 385, 386, 65535  # round(v / 257): 0 0 0 1 1 2 255


def as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=2)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """`colour` (H, W, 3) uint8 with `alpha` (H, W) uint8 over white, rounded: the definition, in exact fractions."""
    weight = alpha[:, :, None].astype(int)
    return ((2 * (colour.astype(int) * weight + 255 * (255 - weight)) + 255) // 510).astype(np.uint8)


def check(path: Path, expected: np.ndarray) -> None:
    decoded = read_image(path)
    assert decoded.dtype == np.uint8
    assert decoded.flags.writeable
    np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_colour_and_grey(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    check(saved(tmp_path / f"colour.{suffix}", COLOUR, **options), COLOUR)
    check(saved(tmp_path / f"grey.{suffix}", GREY, **options), as_rgb(GREY))


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_one_bit(tmp_path: Path, suffix: str) -> None:
    bits = GREY > 127
    check(saved(tmp_path / f"bits.{suffix}", Image.fromarray(bits)), as_rgb(bits.astype(np.uint8) * 255))


def test_png_of_four_bits_is_scaled(tmp_path: Path) -> None:
    path = png(tmp_path / "nibbles.png", bytes([0x0F, 0x18]), size=(1, 4), depth=4, colour=0)
    check(path, as_rgb(np.array([[0, 255, 17, 136]], dtype=np.uint8)))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif", "deep.pgm"])
def test_grey_of_sixteen_bits_is_scaled_by_its_range(tmp_path: Path, name: str) -> None:
    expected = ((2 * DEEP.astype(int) + 257) // 514).astype(np.uint8)
    assert expected[0].tolist() == [0, 0, 0, 1, 1, 2, 255]
    check(saved(tmp_path / name, DEEP), as_rgb(expected))


def test_big_endian_tiff_of_sixteen_bits(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (7, 5), DEEP.astype(">u2").tobytes())
    check(saved(tmp_path / "deep.tif", image), as_rgb(((2 * DEEP.astype(int) + 257) // 514).astype(np.uint8)))


def test_integers_of_thirty_two_bits_count_as_sixteen(tmp_path: Path) -> None:
    path = saved(tmp_path / "deep.tif", DEEP.astype(np.int32))
    check(path, as_rgb(((2 * DEEP.astype(int) + 257) // 514).astype(np.uint8)))


def test_tiff_whose_zero_is_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "xray.tif", DEEP, tiffinfo={262: 0})
    check(path, as_rgb(((2 * (65535 - DEEP.astype(int)) + 257) // 514).astype(np.uint8)))
    np.testing.assert_array_equal(read_mask(path, image_path=path, image_size=(5, 7)), DEEP != 65535)


def test_tiff_of_twelve_bits(tmp_path: Path) -> None:
    path = tiff(tmp_path / "camera.tif", bytes.fromhex("000fff" + "800008"), size=(2, 2), depth=12)
    check(path, as_rgb(np.array([[0, 255], [128, 0]], dtype=np.uint8)))


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_png_of_sixteen_bit_colour_is_scaled_by_its_range(tmp_path: Path, colour: int, channels: int) -> None:
    pixels = RNG.integers(0, 65536, (5, 7, channels), dtype=np.uint16)
    value = pixels[..., :3].astype(int) if channels > 2 else pixels[..., :1].astype(int)
    weight = pixels[..., -1:].astype(int) if channels in (2, 4) else 65535
    expected = np.rint((value * weight + 65535 * (65535 - weight)) / 65535 / 257)
    path = png(tmp_path / "deep.png", pixels.astype(">u2").tobytes(), size=(5, 7), depth=16, colour=colour)
    check(path, np.broadcast_to(expected, (5, 7, 3)).astype(np.uint8))


def test_floats_from_zero_to_one(tmp_path: Path) -> None:
    values = RNG.random((5, 7)).astype(np.float32)
    values[0, :2] = 0, 1
    check(saved(tmp_path / "float.tif", values), as_rgb(np.rint(values * 255).astype(np.uint8)))


@pytest.mark.parametrize(
    "values", [[[0.0, 1.5]], [[-0.1, 1.0]], [[0.0, float("nan")]], [[0, 70000]], [[-1, 5]], [[0.0, 255.0]]]
)
def test_refuses_grey_without_a_known_range(tmp_path: Path, values: list) -> None:
    kind = np.float32 if isinstance(values[0][0], float) else np.int32
    path = saved(tmp_path / "odd.tif", np.array(values, dtype=kind))
    with pytest.raises(InputError, match=r"odd\.tif: grey values from .* expected 0 to (1|65535), .* save it as"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_alpha_is_composed_on_white(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    rgba = np.dstack([COLOUR, ALPHA])
    check(saved(tmp_path / f"colour.{suffix}", rgba, **options), on_white(COLOUR, ALPHA))


def test_grey_with_alpha_is_composed_on_white(tmp_path: Path) -> None:
    path = saved(tmp_path / "grey.png", Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]))
    check(path, on_white(as_rgb(GREY), ALPHA))


def palette_image() -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """A palette picture, its indices (5, 7) and its four colours (4, 3)."""
    indices = RNG.integers(0, 4, (5, 7), dtype=np.uint8)
    indices[0, :4] = 0, 1, 2, 3
    colours = np.array([[10, 20, 30], [0, 0, 0], [255, 0, 7], [99, 200, 1]], dtype=np.uint8)
    image = Image.fromarray(indices).convert("L")
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    return image, indices, colours


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
def test_palette(tmp_path: Path, suffix: str) -> None:
    image, indices, colours = palette_image()
    check(saved(tmp_path / f"palette.{suffix}", image), colours[indices])


def test_palette_with_transparency(tmp_path: Path) -> None:
    image, indices, colours = palette_image()
    alphas = np.array([255, 0, 100, 255], dtype=np.uint8)
    path = saved(tmp_path / "partial.png", image, transparency=alphas.tobytes())
    check(path, on_white(colours[indices], alphas[indices]))
    path = saved(tmp_path / "whole.png", image, transparency=2)
    check(path, np.where((indices == 2)[:, :, None], 255, colours[indices]))


def test_transparent_colour_of_png(tmp_path: Path) -> None:
    path = saved(tmp_path / "key.png", COLOUR, transparency=tuple(COLOUR[2, 3].tolist()))
    clear = (COLOUR[2, 3] == COLOUR).all(axis=2)
    check(path, np.where(clear[:, :, None], 255, COLOUR))


def test_jpeg_colour_and_grey_within_its_loss(tmp_path: Path) -> None:
    slope = np.add.outer(np.arange(32) * 3, np.arange(48) * 2).astype(np.uint8)
    colour = np.dstack([slope, 255 - slope, slope // 2])
    for pixels, expected in ((slope, as_rgb(slope)), (colour, colour)):
        decoded = read_image(saved(tmp_path / "photo.jpg", pixels, quality=95, subsampling=0))
        assert np.abs(decoded.astype(int) - expected).max() <= 5


def test_cmyk_jpeg_and_tiff(tmp_path: Path) -> None:
    ink = np.zeros((16, 16, 4), dtype=np.uint8)
    ink[:, 8:] = 255, 0, 0, 51  # cyan under a fifth of black; the left half is blank paper
    for name in ("print.jpg", "print.tif"):
        decoded = read_image(saved(tmp_path / name, Image.fromarray(ink, "CMYK"))).astype(int)
        assert np.abs(decoded[:, :8] - 255).max() <= 2
        assert np.abs(decoded[:, 8:] - (0, 204, 204)).max() <= 3


# How the file's rows and columns lie in the upright image, from the EXIF standard: 3 = upside down, 6 = its top is at
# the right-hand side of the upright image, and so on.
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    corners = np.kron(np.array([[0, 80, 255], [160, 40, 200]], dtype=np.uint8), np.ones((16, 16), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"turned.{suffix}", corners, exif=exif, **options)
    expected = UPRIGHT[orientation](as_rgb(corners))
    decoded = read_image(path)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= (2 if suffix == "jpg" else 0)
    mask = read_mask(path, image_path=path, image_size=expected.shape[:2])
    np.testing.assert_array_equal(mask, expected[:, :, 0] >= (128 if suffix == "jpg" else 1))


def test_exif_orientation_of_deep_grey(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.png", "turned.tif"):
        path = saved(tmp_path / name, (DEEP // 257 * 257).astype(np.uint16), exif=exif)
        check(path, as_rgb(np.rot90(DEEP // 257, -1).astype(np.uint8)))


def test_first_frame_of_many(tmp_path: Path) -> None:
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    for name in ("pages.tif", "moving.png", "moving.webp"):
        options = {"lossless": True} if name.endswith("webp") else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        check(tmp_path / name, COLOUR)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_refuses_truncated_file(tmp_path: Path, suffix: str, share: float) -> None:
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"cut.{suffix}", noise)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    for read in (read_image, lambda file: read_mask(file, image_path=file, image_size=(64, 64))):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_refuses_text_called_png(tmp_path: Path) -> None:
    path = tmp_path / "notes.png"
    path.write_text("not a picture")
    with pytest.raises(InputError, match=r"notes\.png: not an image"):
        read_image(path)


def test_refuses_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(InputError, match="is a folder, expected an image file"):
        read_image(tmp_path)


SPOT = np.zeros((5, 7), dtype=bool)
SPOT[1:3, 2:6] = True


def masks() -> dict[str, Image.Image]:
    """The same defect, `SPOT`, as different programs would save it."""
    inside, clear = SPOT.astype(np.uint8), np.full((5, 7), 255, dtype=np.uint8)
    reversed_palette = Image.fromarray(1 - inside)
    reversed_palette.putpalette([200, 0, 0, 0, 0, 0])
    blue = np.dstack([0 * inside, 0 * inside, 3 * inside])
    return {
        "one bit": Image.fromarray(SPOT),
        "0 and 255": Image.fromarray(inside * 255),
        "0 and 1": Image.fromarray(inside),
        "16 bits, 0 and 1": Image.fromarray(inside.astype(np.uint16)),
        "16 bits, 0 and 65535": Image.fromarray(inside.astype(np.uint16) * 65535),
        "blue only": Image.fromarray(blue),
        "palette with black at 1": reversed_palette,
        "opaque alpha": Image.fromarray(np.dstack([inside * 255] * 3 + [clear])),
        "white in the clear": Image.fromarray(np.dstack([clear] * 3 + [inside * 255])),
        "grey and alpha": Image.merge("LA", [Image.fromarray(inside * 9), Image.fromarray(clear)]),
    }


@pytest.mark.parametrize("kind", masks())
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_mask_is_what_is_not_black(tmp_path: Path, kind: str, suffix: str) -> None:
    path = saved(tmp_path / f"mask.{suffix}", masks()[kind])
    mask = read_mask(path, image_path=tmp_path / "image.png", image_size=(5, 7))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, SPOT)


def test_jpeg_mask_does_not_grow_by_its_ringing(tmp_path: Path) -> None:
    spot = np.zeros((40, 40), dtype=bool)
    spot[11:23, 9:30] = True
    path = saved(tmp_path / "mask.jpg", spot.astype(np.uint8) * 255, quality=75)
    assert ((read_image(path)[:, :, 0] > 0) != spot).any()
    np.testing.assert_array_equal(read_mask(path, image_path=path, image_size=(40, 40)), spot)


def test_refuses_mask_of_another_size_and_names_both(tmp_path: Path) -> None:
    path = saved(tmp_path / "mask.png", SPOT)
    with pytest.raises(InputError) as caught:
        read_mask(path, image_path=tmp_path / "image.png", image_size=(7, 5))
    message = str(caught.value)
    assert message.startswith(f"{path}: the mask has 5 x 7 pixels")
    assert f"{tmp_path / 'image.png'} 7 x 5" in message


SIZES = [(224, 224), (40, 300), (300, 40), (120, 97), (50, 151), (1, 1), (121, 96)]


@pytest.mark.parametrize("size", SIZES)
def test_resize_is_antialiased_bilinear_as_in_torch(size: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (120, 96, 3), dtype=np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    expected = interpolate(tensor, size=size, mode="bilinear", align_corners=False, antialias=True)
    resized = resize(image, size)
    assert resized.shape == (*size, 3)
    assert resized.dtype == np.uint8
    assert resized.flags.writeable
    assert np.abs(resized - expected[0].permute(1, 2, 0).numpy()).max() <= 1


def test_resize_to_its_own_size_changes_nothing() -> None:
    assert resize(COLOUR, (5, 7)) is COLOUR
    assert resize_mask(SPOT, (5, 7)) is SPOT


@pytest.mark.parametrize("size", [(7, 3), (10, 14), (1, 1), (3, 40), (224, 224)])
def test_mask_takes_the_pixel_under_the_centre(size: tuple[int, int]) -> None:
    mask = np.random.default_rng(5).random((30, 22)) > 0.5
    rows = np.floor((np.arange(size[0]) + 0.5) * 30 / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * 22 / size[1]).astype(int)
    resized = resize_mask(mask, size)
    assert resized.dtype == bool
    np.testing.assert_array_equal(resized, mask[np.ix_(rows, columns)])


def test_read_pixels_do_not_hang_on_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path / "image.bmp", COLOUR)
    first = read_image(path)
    path.write_bytes(saved(tmp_path / "other.bmp", 255 - COLOUR).read_bytes())
    np.testing.assert_array_equal(first, COLOUR)
    np.testing.assert_array_equal(read_image(path), 255 - COLOUR)


@pytest.fixture
def pillow_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 89_478_485)


def scans(path, count):
    """A progressive JPEG whose last scan comes `count` times."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(file, format="JPEG", progressive=True)
    content = file.getvalue()
    last = content[content.rfind(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + last * count + content[-2:])
    return content.count(b"\xff\xda") + count


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded(tmp_path):
    assert scans(tmp_path / "few.jpg", 80) < 100
    assert read_image(tmp_path / "few.jpg").shape == (40, 60, 3)
    count = scans(tmp_path / "many.jpg", 20_000)
    for read in (read_image, read_marks):
        with pytest.raises(InputError, match=rf"many\.jpg: has {count} scans, more than the limit of 100"):
            read(tmp_path / "many.jpg")


@pytest.mark.usefixtures("pillow_limit")
@pytest.mark.filterwarnings("ignore:Image size")
@pytest.mark.parametrize(
    ("size", "found"),
    [
        ((12_000, 9_000), "12000 x 9000 pixels are 108.0 megapixels"),
        ((15_000, 15_000), r"(15000 x 15000 pixels are )?225\.0 megapixels"),
        ((50_000, 40_000), r"2000\.0 megapixels"),
    ],
)
def test_limit_of_pixels_is_told_before_any_is_decoded(tmp_path: Path, size: tuple[int, int], found: str) -> None:
    path = header_only(tmp_path / "large.png", *size)
    with pytest.raises(InputError, match=rf"large\.png: {found}, more than the limit of 100; .*raise max_megapixels"):
        read_image(path)


def test_limit_can_be_raised_beyond_that_of_pillow_and_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "line.png", Image.new("L", (600, 10)))
    for theirs in (1_000, 4_000, None):  # Pillow would raise, warn, not care
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", theirs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert read_image(path, max_pixels=6_000).shape == (10, 600, 3)
        with pytest.raises(InputError, match=r"600 x 10 pixels are 0\.0 megapixels, more than the limit of 0\.005999"):
            read_image(path, max_pixels=5_999)


def test_what_a_file_is_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "report.jpg").write_bytes(b"%PDF-1.7\n...")
    with pytest.raises(InputError, match=r"empty\.jpg: the file is empty; save it as PNG or delete it"):
        read_image(tmp_path / "empty.jpg")
    with pytest.raises(InputError, match=r"report\.jpg: not an image .*begins with b'%PDF-1\.7'"):
        read_image(tmp_path / "report.jpg")
