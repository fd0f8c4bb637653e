"""The source of images for the value of `input=`."""

import os
from collections.abc import Callable, Iterator
from glob import has_magic
from pathlib import Path

from uniad_lightning.data.images.decoding import MAX_PIXELS
from uniad_lightning.data.images.formats import USUAL_SUFFIXES
from uniad_lightning.errors import InputError, TemporaryError, did_you_mean
from uniad_lightning.files.user_path import expand
from uniad_lightning.prediction.sources.address import EXPECTED, Address, address_of, is_live
from uniad_lightning.prediction.sources.folder_walk import ALL, split, walk
from uniad_lightning.prediction.sources.items import Item, Source, broken_item, image_item
from uniad_lightning.prediction.sources.lists import entries, from_list, from_standard_input
from uniad_lightning.prediction.sources.passed_over import PassedOver
from uniad_lightning.prediction.sources.stream import Stream
from uniad_lightning.prediction.sources.video import SUFFIXES as VIDEO_SUFFIXES
from uniad_lightning.prediction.sources.video import Video

_EXPECTED = (
    "an image, a folder, a pattern such as 'photos/**/*.png', a list of paths (.txt), a video, - for paths on the "
    f"standard input, {EXPECTED}"
)


def open_source(
    input: str,
    *,
    watch: bool = False,
    stop_after_idle: float | None = None,
    every: int = 1,
    max_pixels: int = MAX_PIXELS,
    without: Path | None = None,
) -> Source:
    """The images of `input`, read while they are inspected.

    Args:
        input: an image; a folder, with all images below it; a pattern with `**`; a `.txt` list of paths relative to its
            own folder; a video; `-` for paths on the standard input, relative to the working directory; a camera
            (`camera:0`) or a stream (`rtsp://...`, `http://...`), of which always the newest frame is taken.
        watch: go on with images that arrive in the folder `input`.
        stop_after_idle: seconds without a new image after which watching, or reading a stream, ends; None: never.
        every: take every n-th frame of a video or stream.
        max_pixels: an image or frame of more pixels is refused.
        without: a folder whose images are left out, such as that of the results.

    Raises InputError where there is no image, and for settings that do not fit `input`. The error of a single image is
    raised by its `read`.
    """
    address = _address_of(input)
    path = expand(input)
    video = path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()
    _check(
        address.shown if address else input, watch=watch and not path.is_dir(), idle=stop_after_idle,
        endless=watch or address is not None, every=every, frames=video or address is not None,
    )  # fmt: skip
    if max_pixels < 1:
        raise InputError(f"max_megapixels={max_pixels / 1e6:g}: expected a number above 0")
    if address is not None:
        stream = Stream(address, every=every, max_pixels=max_pixels, idle=stop_after_idle)
        return Source(stream.items(), _unknown, stop=stream.stop, dropped=lambda: stream.dropped)
    if watch:
        return _watched(path, max_pixels, without, stop_after_idle)
    if video and path.is_file():
        film = Video(path, every=every, max_pixels=max_pixels)
        return Source(film.items(), film.total)
    return _source(input, path, max_pixels, without)


def _address_of(input: str) -> Address | None:
    """The camera or stream that `input` names; None where it names files."""
    if not isinstance(input, str) or not input:
        raise InputError(f"input={input!r}: expected {_EXPECTED}; quote a number that is the name of a file")
    return address_of(input) if is_live(input) else None


def _watched(path: Path, max_pixels: int, without: Path | None, idle: float | None) -> Source:
    _refuse_results(path, without)
    from uniad_lightning.prediction.sources.watch_folder import Watch

    watched = Watch(path, without=without, max_pixels=max_pixels, idle=idle)
    return Source(watched.items(), _unknown, watched.passed_over)


def _source(input: str, path: Path, max_pixels: int, without: Path | None) -> Source:
    """The standard input, a list, an image file, or a folder or pattern."""
    if input == "-":
        return Source(from_standard_input(max_pixels), _unknown)
    if path.is_file() and path.suffix.lower() == ".txt":
        nothing = f"input={input}: the list has no image; expected one path a line"
        return Source(_some(from_list(path, max_pixels), lambda: nothing), lambda: sum(1 for _ in entries(path)))
    if path.is_file():
        return Source(iter([image_item(path.name, path, max_pixels)]), lambda: 1)
    if path.exists() and not path.is_dir():
        raise InputError(f"input={input}: a pipe or device, expected {_EXPECTED}")
    folder, pattern, nothing = _folder_and_pattern(input, path)
    _refuse_results(folder, without)
    return _walked(input, folder, pattern, nothing, max_pixels, without)


def _folder_and_pattern(input: str, path: Path) -> tuple[Path, tuple[str, ...], str]:
    """The folder to walk, the pattern below it, and the message for no image. Raises InputError for an unknown path."""
    if path.is_dir():  # an existing name is used as it is, also where it could be a pattern
        return path, ALL, f"the folder holds no image ({USUAL_SUFFIXES}); give the folder they are in"
    if has_magic(input):
        folder, pattern = split(str(path))
        return folder, pattern, f"matches no image in {folder.absolute()}; ** stands for any number of folders"
    near = did_you_mean(path.name, _names(path.parent))
    raise InputError(f"input={input}: {path.absolute()} does not exist.{near} Expected {_EXPECTED}")


def _walked(
    input: str, folder: Path, pattern: tuple[str, ...], nothing: str, max_pixels: int, without: Path | None
) -> Source:
    """The images of a folder or pattern; InputError with `nothing` where there is none."""
    passed_over = PassedOver()

    def items() -> Iterator[Item]:
        for found in walk(folder, pattern, without=without, passed_over=passed_over.note):
            if found.error is None:
                yield image_item(found.name, found.path, max_pixels)
            elif found.name:
                yield broken_item(found.name, found.message, TemporaryError)
            elif not isinstance(found.error, FileNotFoundError):  # a missing folder of a pattern: no match
                raise InputError(f"input={input}: {found.message}")

    def total() -> int:
        return sum(1 for _ in walk(folder, pattern, without=without))

    def message() -> str:
        return f"input={input}: {'; '.join(filter(None, [nothing, passed_over.summary()]))}"

    return Source(_some(items(), message), total, passed_over)


def _some(items: Iterator[Item], message: Callable[[], str]) -> Iterator[Item]:
    """`items`; raises InputError with `message` at once where there is none."""
    first = next(items, None)
    if first is None:
        raise InputError(message())

    def all_items() -> Iterator[Item]:  # a generator, which closes `items` when it is closed
        yield first
        yield from items

    return all_items()


def _check(input: str, *, watch: bool, idle: float | None, endless: bool, every: int, frames: bool) -> None:
    if watch:
        raise InputError(f"input={input}: watch=true needs an existing folder; make it, or leave watch out")
    if idle is not None and not (endless and idle > 0):
        raise InputError(f"stop_after_idle={idle}: expected seconds above 0, together with watch=true or a stream")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1 or (every > 1 and not frames):
        raise InputError(f"every={every}: expected a whole number from 1, and above 1 only for a video or stream")


def _refuse_results(folder: Path, without: Path | None) -> None:
    """Raises InputError where the folder of the images is that of the results, which is left out."""
    if without is not None and folder.is_dir() and without.is_dir() and folder.samefile(without):
        raise InputError(f"output_dir={without}: is the folder of the images itself; choose another output_dir")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _unknown() -> None:
    return None
