"""Augmentation of the training images, off in the paper; the only module that imports albumentations."""

import os

import numpy as np

from uniad_lightning.errors import InputError
from uniad_lightning.randomness import key


class Augmentation:
    """Random changes that leave a good image good: (H, W, 3) uint8 -> the same.

    `flip` and `flip_vertical` are probabilities of mirroring left-right and top-down; `rotate` the largest angle in
    degrees, borders filled by reflection; `colour` the largest relative change of brightness, contrast and saturation.
    With all of them 0 an image is returned unchanged. The changes depend on `seed` and the sample's number alone.

    Raises InputError for a value out of range.
    """

    def __init__(self, *, flip: float, flip_vertical: float, rotate: float, colour: float, seed: int):
        for name, value, most in (
            ("flip", flip, 1), ("flip_vertical", flip_vertical, 1), ("rotate", rotate, 180), ("colour", colour, 1),
        ):  # fmt: skip
            if not 0 <= value <= most:
                raise InputError(f"data.augmentation.{name}={value}: expected a number from 0 to {most}")
        self.seed = seed
        self.settings = {"flip": flip, "flip_vertical": flip_vertical, "rotate": rotate, "colour": colour}
        self._compose = self._build() if self.is_random else None

    @property
    def is_random(self) -> bool:
        """Whether any change is on."""
        return any(self.settings.values())

    def __call__(self, image: np.ndarray, number: int) -> np.ndarray:
        """`image` with the random changes of the sample `number`."""
        if self._compose is None:
            return image
        # One by one: `Compose` would give all its parts the same draws.
        for place, part in enumerate(self._compose.transforms):
            part.set_random_seed(key("augmentation", self.seed, number, place) % 2**32)
        return self._compose(image=image)["image"]

    def _build(self):  # noqa: ANN202
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network for a newer version
        import albumentations as A
        import cv2

        on = self.settings
        colour = on["colour"]
        parts = [
            A.HorizontalFlip(p=on["flip"]),
            A.VerticalFlip(p=on["flip_vertical"]),
            A.Rotate(limit=on["rotate"], border_mode=cv2.BORDER_REFLECT_101, p=1.0 if on["rotate"] else 0.0),
            A.ColorJitter(brightness=colour, contrast=colour, saturation=colour, hue=0.0, p=1.0 if colour else 0.0),
        ]
        return A.Compose(parts)
