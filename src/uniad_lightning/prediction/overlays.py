"""Overlays and masks of inspected images, each a file inside the folder of the results."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from itertools import count
from pathlib import Path, PurePosixPath
from threading import Lock
from uuid import uuid4

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from uniad_lightning.errors import InputError
from uniad_lightning.files.atomic import renaming
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.prediction.sources.items import Digests, Item
from uniad_lightning.training.build import warn

OVERLAYS, MASKS = "overlays", "masks"
OVERLAY_FOLDERS = (OVERLAYS, MASKS)
SHARE_OF_DISK = 0.1  # that they may take by default
_SOFTWARE = ("Software", "uniad-lightning")  # a keyword of the PNG standard, by which a drawn file is known
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.tmp")
_LONGEST = 200  # bytes of one part of a path, of the 255 that file systems allow


class OverlayFiles:
    """Draws into `overlays/<name>.png` and `masks/<name>.png` of `folder`, at the size of the source.

    A name that leads out of the folder, is taken by another image or cannot be that of a file gets a code appended.
    When all files there take `size` GB (None: a tenth of the disk), no more are drawn, and a warning says so. Of what
    was free at the beginning each of `processes` takes its part. Raises InputError for another size.
    """

    def __init__(self, folder: Path, size: float | None = None, processes: int = 1):
        if size is not None and (isinstance(size, bool) or not isinstance(size, int | float) or not size > 0):
            raise InputError(f"overlays_size={size}: expected GB above 0, or null for a tenth of the disk")
        self._folder = folder
        self._size = size
        self._processes = processes
        self._lock = Lock()
        self._taken: set[str] = set()  # names of images that are being drawn
        self._left: float | None = None  # bytes, once something is drawn
        self._full = False

    def draw(self, item: Item, inspection: Inspection) -> tuple[str, str]:
        """Paths of the overlay and the mask below the folder; empty where none is drawn.

        There is no mask without a boundary, and neither where the size is reached.
        """
        if not self._spend(0):
            return "", ""
        try:
            return self._draw(item, inspection)
        except IsADirectoryError:  # a folder of this name was made meanwhile; now the name counts as taken
            return self._draw(item, inspection)

    def _draw(self, item: Item, inspection: Inspection) -> tuple[str, str]:
        name = self._reserve(item, OVERLAY_FOLDERS if inspection.defective is not None else (OVERLAYS,))
        try:
            overlay, mask = f"{OVERLAYS}/{name}", f"{MASKS}/{name}"
            self._write(overlay, inspection.overlay())
            if inspection.defective is None:
                return overlay, ""
            self._write(mask, Image.fromarray(inspection.mask.astype(np.uint8) * 255))
        finally:
            with self._lock:
                self._taken.discard(name.casefold())
        return overlay, mask

    def _spend(self, size: int) -> bool:
        """Take `size` bytes from what is left; whether anything was."""
        with self._lock:
            if self._left is None:
                most = SHARE_OF_DISK * shutil.disk_usage(self._folder).total if self._size is None else self._size * 1e9
                self._left = (most - _bytes_in(self._folder)) / self._processes
            had, self._left = self._left > 0, self._left - size
            if self._left <= 0 and not self._full:
                self._full = True
                taken = "a tenth of the disk" if self._size is None else f"{self._size:g} GB"
                warn(
                    f"overlays and masks in {self._folder} take {taken}: no more are drawn, while rows go on; "
                    "overlays_size=... allows more"
                )
            return had

    def _reserve(self, item: Item, folders: tuple[str, ...]) -> str:
        """A path that no other image has, its folders made."""
        with self._lock:
            for name in _choices(item):
                places = [self._folder / folder / name for folder in folders]
                if name.casefold() in self._taken or any(place.exists() for place in places):
                    continue
                try:
                    for place in places:
                        self._make(place.parent)
                except (FileExistsError, NotADirectoryError):
                    if "/" not in name:  # the folder of all of them is a file
                        raise
                    continue
                self._taken.add(name.casefold())
                return name
        raise AssertionError("the choices have no end")

    def _make(self, folder: Path) -> None:
        """Make a folder below that of the results, which is not made again where it has been removed."""
        for parent in reversed([folder, *folder.parents]):
            if self._folder in parent.parents:
                parent.mkdir(exist_ok=True)

    def _write(self, name: str, image: Image.Image) -> None:
        path = self._folder / name
        unique = path.with_name(f".{uuid4().hex}.tmp")  # processes of several machines may draw at the same time
        with renaming(unique, path):
            # The level is not the smallest, but several times faster.
            image.save(unique, format="PNG", compress_level=1, pnginfo=_signed())
            self._spend(unique.stat().st_size)


def _bytes_in(folder: Path) -> int:
    """What the overlays and masks of earlier calls take."""
    size, places = 0, (place for name in OVERLAY_FOLDERS for place, _, _ in os.walk(folder / name))
    for entry in (entry for place in places for entry in os.scandir(place)):
        with suppress(FileNotFoundError):  # another process has just given it its name
            size += entry.stat(follow_symlinks=False).st_size
    return size


def _choices(item: Item) -> Iterator[str]:
    """Paths for the picture of an image, the most telling first, without end."""
    plain = safe_name(item.name)
    code = blake2b(os.fsencode(item.key + item.version), digest_size=6).hexdigest()
    if plain == item.name:
        yield f"{plain}.png"
    for number in count(1):  # one image may come often, without a change that its version shows
        unique = code if number == 1 else f"{code}-{number}"
        yield f"{plain}~{unique}.png"
        yield f"{unique}.png"  # without a folder, since that may be a file by now: `a.png.png/b.png` beside `a.png`


def remove_undrawn(folder: Path, named: Digests) -> None:
    """Remove the overlays and masks of killed calls that are not `named` in a row: paths below `folder`.

    Their images are drawn again, which would otherwise get a second file. Files that this class has not drawn stay.
    """
    for name in OVERLAY_FOLDERS:
        for place, _, files in os.walk(folder / name):
            for path in (Path(place) / file for file in files):
                unnamed = path.relative_to(folder).as_posix() not in named
                if unnamed and (_UNFINISHED.fullmatch(path.name) or _is_signed(path)):
                    path.unlink(missing_ok=True)


def _signed() -> PngInfo:
    info = PngInfo()
    info.add_text(*_SOFTWARE)
    return info


def _is_signed(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            keyword, value = _SOFTWARE
            return image.format == "PNG" and image.info.get(keyword) == value
    except (OSError, ValueError, Image.DecompressionBombError):  # it is no image
        return False


def safe_name(name: str) -> str:
    """`name` as a path that stays inside a folder and fits into a file system; unchanged where it does already."""
    parts = [_part(part) for part in name.replace(os.sep, "/").split("/")]
    return str(PurePosixPath(*filter(None, parts))) if any(parts) else "_"


def _part(part: str) -> str:
    if part in ("", "."):
        return ""
    encoded = os.fsencode(part)
    cut = encoded[:_LONGEST].decode("utf-8", "ignore") if len(encoded) > _LONGEST else part
    return "_" + cut if part == ".." or part.endswith(":") else cut
