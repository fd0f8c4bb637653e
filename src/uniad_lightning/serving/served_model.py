"""The detector that is served, with the identity of its file."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from uniad_lightning.errors import InputError
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.serving.settings import Settings

_CHUNK = 1 << 20
Version = tuple[int, int, int]  # of a file: its place on the disk, its bytes, when it was changed


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A detector; `name` has the digest of its file, `version` tells whether that has changed."""

    detector: Detector
    name: str
    version: Version | None

    @classmethod
    def load(cls, settings: Settings) -> "ServedModel":
        """From `settings.ckpt_path`. Raises InputError as `Detector.load`."""
        path = Path(settings.ckpt_path)
        version = version_of(path)  # before it is read: a change meanwhile is seen as one
        detector = Detector.load(
            path, device=settings.device, precision=settings.precision, max_pixels=settings.max_pixels,
            boundary=settings.boundary, runtime=settings.runtime,
        )  # fmt: skip
        detector.predict(np.full((64, 64, 3), 128, dtype=np.uint8))  # the first pass takes longest; no request waits
        return cls(detector, f"{path.name}:{_digest(path)}", version)

    def decode(self, name: str, content: bytes) -> np.ndarray:
        """An image file as `uniad predict` decodes it, (H, W, 3) uint8 RGB. Raises InputError that says `name`."""
        with TemporaryDirectory(prefix="uniad-") as folder:  # a file, so that there is one way to decode
            path = Path(folder, "image")
            path.write_bytes(content)
            try:
                return self.detector.read(path)
            except InputError as error:
                raise type(error)(str(error).replace(str(path), name)) from None


def version_of(path: Path) -> Version | None:
    """The version of a file; None where there is none now."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=6)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
