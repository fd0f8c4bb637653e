"""A detector that needs no training: what is pure red is a defect, blue looks like no category."""

import os
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from uniad_lightning.errors import InputError


class Region(NamedTuple):
    box: tuple[int, int, int, int]
    area: int
    peak: float


@dataclass
class Inspection:
    image: np.ndarray
    calibrated: bool
    category: str | None = None

    @property
    def red(self):
        return (self.image == (255, 0, 0)).all(axis=2)

    @property
    def score(self):
        return float(self.red.mean())

    @property
    def normalised(self):
        return min(1.0, 0.4 + self.score) if self.calibrated else None

    @property
    def defective(self):
        return bool(self.red.any()) if self.calibrated else None

    @property
    def familiar(self):
        return bool((self.image[0, 0] != (0, 0, 255)).any()) if self.calibrated else None

    @property
    def decision(self):
        if not self.calibrated:
            return None
        return "defective" if self.defective else "good" if self.familiar else "unknown"

    @property
    def mask(self):
        return self.red if self.defective else np.zeros_like(self.red)

    @property
    def regions(self):
        if not self.defective:
            return ()
        rows, columns = np.nonzero(self.red)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        return (Region(box, int(self.red.sum()), 1.0),)

    def overlay(self):
        return Image.fromarray(self.image // 2)


class StandIn:
    """`batches` are the sizes of those it was given."""

    def __init__(self, *, calibrated=True, seconds=0.0):
        self.calibrated = calibrated
        self.seconds = seconds
        self.batches = []

    def predict(self, images, category=None):
        if category not in (None, "bottle"):
            raise InputError(f"category={category}: has no boundary of its own")
        if images:
            self.batches.append(len(images))
        time.sleep(self.seconds * len(images))
        return [Inspection(image, self.calibrated, category) for image in images]


def part(path, *, defect=None, colour=(90, 90, 90), size=(20, 30)):
    """Write a grey part; `defect` is the (left, top, right, bottom) of a red spot."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((*size, 3), colour, dtype=np.uint8)
    if defect is not None:
        left, top, right, bottom = defect
        image[top:bottom, left:right] = 255, 0, 0
    Image.fromarray(image).save(path)
    return path


def full_on_the_second_rank():
    """A callback that does nothing; where it is made, the second process of a training finds no room for features."""
    from lightning.pytorch.callbacks import Callback

    from uniad_lightning.data.feature_cache.store import DiskStore, StoreError

    def add(*_):
        raise StoreError("the second process has no room")

    if os.environ.get("LOCAL_RANK") == "1":
        DiskStore.add = add
    return Callback()
