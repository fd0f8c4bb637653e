"""One image to inspect, and a set of texts that takes eight bytes for each. Opens no image."""

import stat
from collections.abc import Callable, Generator, Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.decoding import read_image, rgb_of_channels
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.prediction.sources.headers import decoding_bytes
from uniad_lightning.prediction.sources.passed_over import PassedOver

_RECENT = 1 << 12  # digests kept in a set before they are sorted into the array


class Item(NamedTuple):
    """One image to inspect.

    Attributes:
        name: its path in the results: below the input folder, as written in a list, `film.mp4#000123`.
        read: decodes it, (H, W, 3) uint8 RGB; raises InputError. Called once, from any thread. Takes `white_level`
            and `channels`, as `read_image`, with the same defaults.
        size: bytes of its file; None where there is none.
        mtime_ns: when its file was last changed, nanoseconds since 1970.
        spent: seconds its decoding took before `read`.
        held: bytes of the image where it is decoded already.
        needs: gives the bytes that `read` takes at its peak; called before it.
        version: distinguishes it from an image of the same key that it replaced; empty for the first of a key.
    """

    name: str
    read: Callable[..., np.ndarray]
    size: int | None = None
    mtime_ns: int | None = None
    spent: float = 0.0
    held: int = 0
    needs: Callable[[], int] = int
    version: str = ""

    @property
    def key(self) -> str:
        """Identifies the image: its name, and size and time of its file."""
        return key_of(self.name, self.size, self.mtime_ns)


class Source(NamedTuple):
    """The images to inspect.

    Attributes:
        items: the images in their order; None in between where there is none at the moment.
        total: gives their number, None where it cannot be known; takes as long as listing them.
        passed_over: the other files of its folders, complete when the items have ended.
        stop: ends the items of a camera or stream, which have no end of their own.
        dropped: gives the number of frames that were not inspected since newer ones came.
    """

    items: Iterator[Item | None]
    total: Callable[[], int | None]
    passed_over: PassedOver | None = None
    stop: Callable[[], None] | None = None
    dropped: Callable[[], int] = int


def key_of(name: str, size: int | None, mtime_ns: int | None) -> str:
    """`Item.key` of its parts."""
    return f"{name}\0{size}\0{mtime_ns}"


def image_item(name: str, path: Path, max_pixels: int) -> Item:
    """The item of an image file; its `read` raises the error where there is one."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return broken_item(name, f"{path}: no such file; correct its path or leave it out", TemporaryError)
    except ValueError as error:  # for a zero byte in the path
        return broken_item(name, f"{path}: cannot be accessed ({error}); correct its path or leave it out")
    except OSError as error:
        message = f"{path}: cannot be accessed ({error.strerror}); mend the link or its permissions, or leave it out"
        return broken_item(name, message, TemporaryError)
    if not stat.S_ISREG(status.st_mode):  # reading from a pipe would wait for ever
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe or device"
        return broken_item(name, f"{path}: a {kind}, expected an image file")
    return Item(
        name,
        partial(read_image, path, max_pixels=max_pixels),
        status.st_size,
        status.st_mtime_ns,
        needs=lambda: decoding_bytes(path, max_pixels),
    )


def decoded_item(
    name: str, image: np.ndarray, *, size: int | None = None, mtime_ns: int | None = None, spent: float = 0.0
) -> Item:
    """The item of an image that is decoded already; `spent` is how many seconds that took."""

    def read(*, channels: Channels | None = None, **_: object) -> np.ndarray:
        return image if channels is None else rgb_of_channels(image, channels, name, FULL_RANGE)

    return Item(name, read, size, mtime_ns, spent, image.nbytes, lambda: image.nbytes)


def read_as(source: Source, *, white_level: int, channels: Channels | None) -> Source:
    """`source`, its images read with `white_level` and `channels`, as by `read_image`."""

    def items() -> Iterator[Item | None]:
        try:
            for item in source.items:
                yield item and item._replace(read=partial(item.read, white_level=white_level, channels=channels))
        finally:
            if isinstance(source.items, Generator):
                source.items.close()

    return source._replace(items=items())


def broken_item(name: str, message: str, kind: type[InputError] = InputError) -> Item:
    """An item whose `read` raises an error of this kind with this message."""

    def read(**_: object) -> NoReturn:
        raise kind(message)

    return Item(name, read)


class Digests:
    """A set of texts that keeps eight bytes of each, so that millions take little memory.

    A text is wrongly taken as contained with a probability of n / 2^64 among n texts.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, dtype=np.uint64)
        self._recent: set[int] = set()

    def __contains__(self, text: str) -> bool:
        return self._has(_digest(text))

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def add(self, text: str) -> bool:
        """Add a text; returns whether it was new."""
        digest = _digest(text)
        if self._has(digest):
            return False
        self._recent.add(digest)
        if len(self._recent) >= _RECENT:
            recent = np.array(sorted(self._recent), dtype=np.uint64)
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, recent), recent)
            self._recent.clear()
        return True

    def _has(self, digest: int) -> bool:
        if digest in self._recent:
            return True
        place = int(np.searchsorted(self._sorted, np.uint64(digest)))
        return place < len(self._sorted) and int(self._sorted[place]) == digest


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="surrogateescape"), digest_size=8).digest(), "big")
