"""Images of a folder, or of CIFAR-100 or CIFAR-10 as published, of which synthetic defects are made."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from uniad_lightning.data.images.decoding import read_image
from uniad_lightning.data.images.resizing import resize
from uniad_lightning.data.layouts.loose_images import loose_images
from uniad_lightning.data.records import Packed
from uniad_lightning.files.user_path import expand
from uniad_lightning.types import Size


class ImageFolder:
    """All images below `folder`, listed when the first is drawn; `key` is the setting that names it.

    Of CIFAR-100 and CIFAR-10 as published these are the train images; `folder` may also be the one above theirs.

    Raises InputError then for a folder that does not exist or holds no image, and for a damaged file of CIFAR's.
    """

    def __init__(self, folder: str, *, key: str):
        self.folder, self.key = expand(folder), key
        self._files: Sequence[Path | Packed] = ()

    def draw(self, size: Size, rng: np.random.Generator) -> np.ndarray:
        """One of the images at `size` (height, width), (H, W, 3) uint8."""
        if not self._files:
            self._files = loose_images(self.folder, self.key)
        return resize(read_image(self._files[int(rng.integers(len(self._files)))]), size)
