"""Every image and mask decoded once, by several threads: what the checks need to know of each."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from uniad_lightning.data.feature_cache.loader import usable_cores
from uniad_lightning.data.images.decoding import read_image, read_marks
from uniad_lightning.data.images.image_file import DATA_SET_PIXELS, opened
from uniad_lightning.data.records import Packed, Record, Splits
from uniad_lightning.errors import InputError
from uniad_lightning.progress_bar import progress_bar

Read = Callable[[Path | Packed], np.ndarray]  # an image, (H, W, 3) uint8 RGB; raises InputError
THUMB = 32  # pixels along each side of what is compared with other images
TRAIN, HELD_OUT, TEST = "train", "held-out", "test"


class MaskLook(NamedTuple):
    """What was seen of a mask.

    Attributes:
        path: its file.
        fault: why it cannot be read; empty where it can.
        damaged: whether its header can be read all the same.
        size: (height, width) in pixels.
        share: of its pixels that are defective, from 0 to 1.
        values: how many values its pixels have.
    """

    path: Path
    fault: str = ""
    damaged: bool = False
    size: tuple[int, int] = (0, 0)
    share: float = 0.0
    values: int = 0


class Look(NamedTuple):
    """What was seen of an image.

    Attributes:
        record: the image with its labels.
        split: `train`, `held-out` or `test`.
        fault: why it cannot be read; empty where it can.
        damaged: whether its header can be read all the same.
        size: (height, width) in pixels.
        digest: of the decoded pixels; equal for copies.
        deviation: standard deviation of all values, in grey levels of 255.
        thumb: the image as (32, 32, 3) uint8; None where it cannot be read.
        masks: its masks.
    """

    record: Record
    split: str
    fault: str = ""
    damaged: bool = False
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    deviation: float = 0.0
    thumb: np.ndarray | None = None
    masks: tuple[MaskLook, ...] = ()


def look_at(splits: Splits, read: Read) -> list[Look]:
    """A look at each image of `splits`, as `read` decodes it, under a progress bar."""
    parts = ((TRAIN, splits.train), (HELD_OUT, splits.validation), (TEST, splits.test))
    records = [record for _, part in parts for record in part]
    names = [name for name, part in parts for _ in part]
    Image.init()  # before threads do
    with ThreadPoolExecutor(_threads()) as threads:
        looks = threads.map(partial(_look, read=read), records, names)
        return list(progress_bar("check images", looks, total=len(records)))


def look_at_masks(paths: Sequence[Path]) -> list[MaskLook]:
    """A look at each of some masks."""
    with ThreadPoolExecutor(_threads()) as threads:
        return list(progress_bar("check other masks", threads.map(_look_at_mask, paths), total=len(paths), delay=2))


def _threads() -> int:
    return max(2, usable_cores())  # one reads while another decodes


def _look(record: Record, split: str, *, read: Read) -> Look:
    masks = tuple(map(_look_at_mask, record.masks))
    try:
        image = read(record.image)
    except InputError as error:
        return Look(record, split, fault=str(error), damaged=_has_header(record.image), masks=masks)
    height, width = image.shape[:2]
    return Look(
        record,
        split,
        size=(height, width),
        digest=blake2b(f"{height} {width}".encode() + image.tobytes(), digest_size=16).digest(),
        deviation=float(image[:: max(1, height // 256), :: max(1, width // 256)].std()),
        thumb=np.asarray(Image.fromarray(image).resize((THUMB, THUMB), Image.Resampling.BOX)),
        masks=masks,
    )


def _look_at_mask(path: Path) -> MaskLook:
    try:
        marks = read_marks(path)
        values = np.unique(read_image(path, max_pixels=DATA_SET_PIXELS).max(axis=2))
    except InputError as error:
        return MaskLook(path, fault=str(error), damaged=_has_header(path))
    size = (marks.shape[0], marks.shape[1])
    return MaskLook(path, size=size, share=float(marks.mean()), values=len(values))


def _has_header(path: Path | Packed) -> bool:
    if isinstance(path, Packed):
        return False
    try:
        with opened(path, DATA_SET_PIXELS):
            return True
    except InputError:
        return False
