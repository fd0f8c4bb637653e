"""From the word `input=` to the pictures it means."""

import os
from collections.abc import Callable, Iterator
from glob import has_magic
from pathlib import Path

from uniad_lightning.data.images.decoding import MAX_PIXELS
from uniad_lightning.data.images.formats import USUAL_SUFFIXES
from uniad_lightning.errors import InputError, TemporaryError, did_you_mean
from uniad_lightning.files.user_path import expand
from uniad_lightning.prediction.sources.folder_walk import ALL, split, walk
from uniad_lightning.prediction.sources.items import Item, Source, broken, picture
from uniad_lightning.prediction.sources.lists import ADDRESS, entries, from_list, from_standard_input
from uniad_lightning.prediction.sources.passed_over import PassedOver
from uniad_lightning.prediction.sources.video import SUFFIXES as VIDEO_SUFFIXES
from uniad_lightning.prediction.sources.video import Video

_EXPECTED = (
    "a picture, a folder, a pattern such as 'photos/**/*.png', a list of paths (.txt), a video, or - for paths on the "
    "standard input"
)
_CAMERA = "A camera is not read itself: have it save images into a folder, and watch that (watch=true)"


def open_source(
    input: str,
    *,
    watch: bool = False,
    stop_after_idle: float | None = None,
    every: int = 1,
    max_pixels: int = MAX_PIXELS,
    without: Path | None = None,
) -> Source:
    """The pictures that `input` means, read while they are judged.

    Args:
        input: a picture; a folder, with all pictures below it; a pattern with `**`; a `.txt` list of paths relative to
            its own folder; a video; `-` for paths on the standard input, relative to the working directory.
        watch: go on with what comes into the folder `input`.
        stop_after_idle: seconds without a new picture after which watching ends; None: never.
        every: take every n-th frame of a video.
        max_pixels: a picture or frame of more pixels is refused.
        without: a folder whose pictures are passed over, such as that of the results.

    Raises InputError when there is nothing to judge, and for settings that do not fit `input`. What is wrong with one
    picture, its `read` raises.
    """
    if not isinstance(input, str) or not input:
        raise InputError(f"input={input!r}: expected {_EXPECTED}; quote a number. {_CAMERA}")
    if ADDRESS.match(input):
        raise InputError(f"input={input}: an address, expected {_EXPECTED}. {_CAMERA}")
    path = expand(input)
    video = path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()
    _check(input, watch=watch and not path.is_dir(), idle=stop_after_idle, watched=watch, every=every, video=video)
    if max_pixels < 1:
        raise InputError(f"max_megapixels={max_pixels / 1e6:g}: expected a number above 0")
    if watch:
        _refuse_results(path, without)
        from uniad_lightning.prediction.sources.watch_folder import Watch

        watched = Watch(path, without=without, max_pixels=max_pixels, idle=stop_after_idle)
        return Source(watched.items(), _unknown, watched.passed_over)
    if input == "-":
        return Source(from_standard_input(max_pixels), _unknown)
    if video and path.is_file():
        film = Video(path, every=every, max_pixels=max_pixels)
        return Source(film.items(), film.total)
    if path.is_file() and path.suffix.lower() == ".txt":
        nothing = f"input={input}: the list names no picture; expected one path a line"
        return Source(_some(from_list(path, max_pixels), lambda: nothing), lambda: sum(1 for _ in entries(path)))
    if path.exists() and not path.is_dir():
        if not path.is_file():
            raise InputError(f"input={input}: a pipe or device, expected {_EXPECTED}. {_CAMERA}")
        return Source(iter([picture(path.name, path, max_pixels)]), lambda: 1)
    return _walked(input, path, max_pixels, without)


def _walked(input: str, path: Path, max_pixels: int, without: Path | None) -> Source:
    """The pictures of a folder or pattern."""
    folder: Path = path
    pattern: tuple[str, ...] = ALL
    passed_over = PassedOver()
    if path.is_dir():  # a name is taken as it stands before it is taken as a pattern
        nothing = f"the folder holds no picture ({USUAL_SUFFIXES}); give the folder they are in"
    elif has_magic(input):
        folder, pattern = split(str(path))
        nothing = f"matches no picture in {folder.absolute()}; ** stands for any number of folders"
    else:
        near = did_you_mean(path.name, _names(path.parent))
        raise InputError(f"input={input}: {path.absolute()} does not exist.{near} Expected {_EXPECTED}")

    _refuse_results(folder, without)

    def items() -> Iterator[Item]:
        for found in walk(folder, pattern, without=without, passed_over=passed_over.note):
            if found.error is None:
                yield picture(found.name, found.path, max_pixels)
            elif found.name:
                yield broken(found.name, found.message, TemporaryError)
            elif not isinstance(found.error, FileNotFoundError):  # a pattern's folder: it matches nothing
                raise InputError(f"input={input}: {found.message}")

    def total() -> int:
        return sum(1 for _ in walk(folder, pattern, without=without))

    def message() -> str:
        return f"input={input}: {'; '.join(filter(None, [nothing, passed_over.line()]))}"

    return Source(_some(items(), message), total, passed_over)


def _some(items: Iterator[Item], message: Callable[[], str]) -> Iterator[Item]:
    """`items`; InputError with `message`, now, when there is none."""
    first = next(items, None)
    if first is None:
        raise InputError(message())

    def all_of_them() -> Iterator[Item]:
        yield first
        yield from items

    return all_of_them()


def _check(input: str, *, watch: bool, idle: float | None, watched: bool, every: int, video: bool) -> None:
    if watch:
        raise InputError(f"input={input}: watch=true needs a folder that is there; make it, or leave watch out")
    if idle is not None and not (watched and idle > 0):
        raise InputError(f"stop_after_idle={idle}: expected seconds above 0, together with watch=true")
    if isinstance(every, bool) or not isinstance(every, int) or every < 1 or (every > 1 and not video):
        raise InputError(f"every={every}: expected a whole number from 1, and above 1 only for a video")


def _refuse_results(folder: Path, without: Path | None) -> None:
    """Raises InputError where the results would go among the pictures, and all of these be left out with them."""
    if without is not None and folder.is_dir() and without.is_dir() and folder.samefile(without):
        raise InputError(f"output_dir={without}: is the folder of the pictures itself; choose another output_dir")


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _unknown() -> None:
    return None
