"""The frames of a video file, all or every n-th, decoded one by one as they are needed."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from uniad_lightning.data.images.image_file import refuse_above
from uniad_lightning.errors import InputError
from uniad_lightning.prediction.sources.items import Item, broken_item, decoded_item
from uniad_lightning.prediction.sources.opencv import opencv

SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"})
_MISSING = 0.1  # share of the frames in a file's header that may be missing: containers estimate that number


class Video:
    """The frames number 0, `every`, 2 `every`, ... of a video file.

    Raises InputError for a file that cannot be opened as a video, and for frames of more than `max_pixels`.
    """

    def __init__(self, path: Path, *, every: int, max_pixels: int):
        self.path = path
        self.every = every
        cv2 = self._cv2 = opencv()
        # The backend is given, or OpenCV would take an unreadable file such as part_007.avi as a sequence of images.
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise InputError(
                f"input={path}: cannot be opened as a video ({_size(path)}); give a complete video file, such as MP4 "
                "with H.264, or convert it"
            )
        size = (self._number(cv2.CAP_PROP_FRAME_WIDTH), self._number(cv2.CAP_PROP_FRAME_HEIGHT))
        refuse_above(max_pixels, size, path)
        self._frames = self._number(cv2.CAP_PROP_FRAME_COUNT)

    def total(self) -> int | None:
        """How many frames there are by the file's header, None where it has no number; often an estimate."""
        return -(-self._frames // self.every) if self._frames > 0 else None

    def items(self) -> Iterator[Item]:
        """The frames as items named `film.mp4#000123`; where the file breaks off early, a last item with that error."""
        status = self.path.stat()
        number = 0
        try:
            while True:
                start = time.perf_counter()
                image = self._next(number)
                if image is None:
                    break
                if len(image):
                    spent = time.perf_counter() - start
                    yield decoded_item(
                        self._name(number), image, size=status.st_size, mtime_ns=status.st_mtime_ns, spent=spent
                    )
                number += 1
        finally:
            self._capture.release()
        if number == 0:
            raise InputError(f"input={self.path}: no frame of the video can be decoded; convert it to MP4 with H.264")
        if number < (1 - _MISSING) * self._frames:
            yield broken_item(
                self._name(number),
                f"{self.path}: breaks off after {number} of about {self._frames} frames; the file is cut or damaged",
            )._replace(size=status.st_size, mtime_ns=status.st_mtime_ns)

    def _next(self, number: int) -> np.ndarray | None:
        """The next frame (H, W, 3) uint8 RGB; empty for one that is skipped, None at the end."""
        if not self._capture.grab():
            return None
        if number % self.every:
            return np.empty((0, 0, 3), dtype=np.uint8)
        decoded, frame = self._capture.retrieve()
        return np.asarray(self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)) if decoded else None

    def _name(self, number: int) -> str:
        return f"{self.path.name}#{number:06d}"

    def _number(self, key: int) -> int:
        return int(self._capture.get(key))


def _size(path: Path) -> str:
    return f"{path.stat().st_size} bytes"
