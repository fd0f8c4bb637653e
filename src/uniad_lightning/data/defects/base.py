"""What makes synthetic defects, and where a training image gets its own."""

from typing import Protocol

import numpy as np

from uniad_lightning.errors import InputError
from uniad_lightning.randomness import key


class SyntheticDefects(Protocol):
    """Makes `views` versions of a good image with a defect in each.

    A version may be left good, its mask then has no pixel. Everything random comes from the generator that is handed
    in, so that an image gets the same defects for any number of processes and in a resumed training.
    """

    views: int

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """An image (H, W, 3) uint8 -> `views` pairs of an image of the same kind and its mask (H, W) bool."""


def damaged(
    defects: SyntheticDefects, image: np.ndarray, *, seed: int, number: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The versions of `image` for the sample `number` of a training with `seed`."""
    return defects(image, np.random.default_rng(key("defects", seed, number)))


def check_share_good(share_good: float) -> float:
    """The share of images that are left good; InputError outside [0, 1)."""
    if not 0 <= share_good < 1:
        raise InputError(f"data.defects.share_good={share_good}: expected a number from 0 to below 1")
    return share_good
