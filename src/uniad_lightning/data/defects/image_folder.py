"""Images of a folder, of which synthetic defects are made."""

from pathlib import Path

import numpy as np

from uniad_lightning.data.images.decoding import read_image, resize
from uniad_lightning.data.layouts.patterns import below
from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.types import Size


class ImageFolder:
    """All images below `folder`, listed when the first is drawn; `key` is the setting that names it.

    Raises InputError then for a folder that does not exist or holds no image.
    """

    def __init__(self, folder: str, *, key: str):
        self.folder, self.key = expand(folder), key
        self._files: list[Path] = []

    def draw(self, size: Size, rng: np.random.Generator) -> np.ndarray:
        """One of the images at `size` (height, width), (H, W, 3) uint8."""
        if not self._files:
            self._files = self._listed()
        return resize(read_image(self._files[rng.integers(len(self._files))]), size)

    def _listed(self) -> list[Path]:
        if not self.folder.is_dir():
            raise InputError(f"{self.key}={self.folder}: is no folder; expected one of images")
        found = below(self.folder)
        if not found:
            raise InputError(f"{self.key}={self.folder}: holds no images; expected a folder of them")
        return found
