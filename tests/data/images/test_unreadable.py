"""Files that are no image, damaged ones, and a system that fails: one error each, of the right kind; never a wait."""

import io
import os
import resource
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.pictures import channels_tiff, needs_pillow_13, png
from uniad_lightning.data.images.decoding import peak_of, read_image, read_marks, rgb_of
from uniad_lightning.data.images.formats import FORMATS, SUFFIXES
from uniad_lightning.data.images.image_file import faults_of
from uniad_lightning.data.layouts.listing import image_files, is_image
from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.prediction.sources.video import SUFFIXES as VIDEOS

READERS = (read_image, read_marks, peak_of)
RNG = np.random.default_rng(5)
COLOUR = RNG.integers(0, 256, (12, 10, 3), dtype=np.uint8)
# What Pillow can open and is left out, and why.
LEFT_OUT = {
    "EPS": "starts Ghostscript",
    "WMF": "Windows alone draws it",
    "FITS": "its scale is not applied",
    "IM": "is deprecated by Pillow",
    "IPTC": "hands its content to any decoder",
    **dict.fromkeys(("MPEG", "BUFR", "GRIB", "HDF5"), "is recognised, not decoded"),
    **dict.fromkeys(("IMT", "MCIDAS", "SPIDER", "XVTHUMB"), "has no suffix"),
    **dict.fromkeys(("FPX", "MIC"), "needs olefile"),
}


def test_the_formats_are_those_that_pillow_decodes() -> None:
    Image.init()
    assert set(Image.OPEN) <= FORMATS.keys() | LEFT_OUT.keys()
    assert not FORMATS.keys() & LEFT_OUT.keys()
    registered = Image.registered_extensions()  # MPO is opened as JPEG
    for suffix, name in registered.items():
        assert (suffix in SUFFIXES) == (name in FORMATS or name == "MPO"), (suffix, name)
    for name, suffixes in FORMATS.items():
        if name in Image.OPEN:  # AVIF, JPEG 2000 and WebP can be missing in a build of Pillow
            assert {suffix for suffix in suffixes if registered[suffix] in (name, "MPO")} == set(suffixes)
    assert not SUFFIXES & VIDEOS


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_suffix_counts_in_any_case(tmp_path: Path, suffix: str) -> None:
    for name in (f"a{suffix}", f"b{suffix.upper()}"):
        (tmp_path / name).touch()
        assert is_image(Path(name))
    assert list(image_files(tmp_path)) == ["a", "b"]


def test_postscript_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    for read in READERS:
        with pytest.raises(InputError, match=r"part\.png: not an image in a format"):
            read(path)


def encoded(name: str, image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def seeds(folder: Path) -> dict[str, bytes]:
    """Small valid files of all formats and modes that can be written here."""
    image = Image.fromarray(np.dstack([COLOUR, COLOUR[..., 0]]))
    found = {}
    for name in FORMATS:
        for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I", "F", "CMYK"):
            try:
                one = Image.fromarray(np.float32(COLOUR[..., 0] / 255)) if mode == "F" else image
                found[f"{name} {mode}"] = encoded(name, one if mode == "F" else one.convert(mode))
            except (OSError, ValueError, KeyError, TypeError, struct.error):  # not a mode of this format
                continue
    deep = RNG.integers(0, 65536, (12, 10, 4), dtype=np.uint16)
    for extra in (1, 2):
        for deflate in (False, True):
            path = channels_tiff(folder / "seed", deep, extra=extra, deflate=deflate)
            found[f"TIFF of 16 bits {extra} {deflate}"] = path.read_bytes()
    premultiplied = channels_tiff(folder / "seed", COLOUR[..., :2], extra=1)
    found["TIFF of premultiplied grey"] = premultiplied.read_bytes()
    path = png(folder / "seed", deep.astype(">u2").tobytes(), size=(12, 10), depth=16, colour=6)
    found["PNG of 16 bits"] = path.read_bytes()
    return found


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    reach = min(len(data), int(rng.choice((40, 200, len(data)))))  # mostly the header
    for _ in range(int(rng.choice((1, 1, 2, 4, 12)))):
        data[rng.integers(reach)] = rng.choice((0, 1, 127, 128, 255, rng.integers(256)))
    return bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)


@pytest.mark.slow
def test_damage_never_raises_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = seeds(tmp_path)
    assert len({name.split()[0] for name in files}) > 15
    path = tmp_path / "damaged.png"
    failed = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a warning that is made an error is no way out either
        for whole in files.values():
            for _ in range(3):
                path.write_bytes(damaged(whole, rng))
                for read in READERS:
                    try:
                        read(path)
                    except InputError as error:
                        failed.append(str(error))
    assert len(failed) > len(files)
    assert all(line.startswith(f"{path}: ") and "\n" not in line for line in failed)


@needs_pillow_13
def test_whole_files_of_all_formats_are_read(tmp_path: Path) -> None:
    path = tmp_path / "whole.png"
    for name, whole in seeds(tmp_path).items():
        path.write_bytes(whole)
        if name == "ICNS P":  # Pillow loses its palette
            with pytest.raises(InputError, match="cannot be decoded"):
                read_image(path)
            continue
        assert read_image(path).shape[2] == 3, name


@needs_pillow_13
def test_premultiplied_grey_is_composed_on_white(tmp_path: Path) -> None:
    grey = np.array([[100, 255, 0, 40]], dtype=np.uint8)
    opacity = np.array([[200, 255, 0, 80]], dtype=np.uint8)
    path = channels_tiff(tmp_path / "grey.tif", np.dstack([grey, opacity]), extra=1)
    assert Image.open(path).mode == "La"
    expected = (grey.astype(int) + 255 - opacity)[..., None]
    assert np.abs(read_image(path).astype(int) - expected).max() <= 1
    assert read_marks(path).tolist() == [[True, True, False, True]]


def test_sixteen_bit_colour_in_compressed_planes_is_refused(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    path = channels_tiff(tmp_path / "planes.tif", pixels, planes=True, deflate=True)
    for read in READERS:
        with pytest.raises(InputError, match="16-bit colour in separate, compressed planes"):
            read(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are POSIX")
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "000.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, said in (
        ("pipe.png", "is a pipe, socket or device, expected an image file"),
        ("zero.png", "is a pipe, socket or device"),
        ("000.png", "is a folder, expected an image file"),
        ("loop.png", "cannot be opened .*correct the path"),
        ("pipe.png/x.png", "cannot be opened .*correct the path"),
    ):
        for read in READERS:
            with pytest.raises(InputError, match=said) as caught:
                read(tmp_path / name)
            assert not isinstance(caught.value, TemporaryError)


def test_too_many_open_files_is_the_systems_fault(tmp_path: Path) -> None:
    path = tmp_path / "sound.png"
    Image.fromarray(COLOUR).save(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
        while True:
            try:
                held.append(os.open(path, os.O_RDONLY))
            except OSError:
                break
        with pytest.raises(TemporaryError, match="cannot be read now .*the system's fault") as caught:
            read_image(path)
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert str(path) in str(caught.value)
    assert read_image(path).shape == (12, 10, 3)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc")
def test_an_input_output_error_is_the_systems_fault() -> None:
    with pytest.raises(TemporaryError, match=r"cannot be read now \(Input/output error\)"):
        read_image(Path("/proc/self/mem"))  # its first page cannot be read


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "Permission denied"), TemporaryError),
        (OSError(116, "Stale file handle"), TemporaryError),
        (OSError(12, "Cannot allocate memory"), TemporaryError),
        (MemoryError(), TemporaryError),
        (OSError(22, "Invalid argument"), InputError),  # an offset of a damaged file
        (OSError("image file is truncated"), InputError),
        (RecursionError("deep"), InputError),
        (SyntaxError("broken chunk"), InputError),
        (struct.error("unpack"), InputError),
        (OverflowError("large"), InputError),
        (UserWarning("odd"), InputError),
    ],
)
def test_faults_of_the_system_and_of_the_file(error: Exception, kind: type) -> None:
    with pytest.raises(InputError, match=r"^part\.png: ") as caught, faults_of("part.png"):
        raise error
    assert type(caught.value) is kind


def test_a_pillow_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:300])
    with Image.open(path) as image, pytest.raises(InputError, match="image: the image cannot be decoded"):
        rgb_of(image, "image")
