"""The parts of an image that a detector inspects: a region of interest, cut into overlapping tiles.

Not in the paper. A defect of a few pixels in a large image is lost when the whole is resized to 224 x 224; each tile
is resized to that by itself, and the tiles' anomaly maps are blended into one.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.decoding import read_marks, read_record
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.images.pixel_box import pixels
from uniad_lightning.data.images.resizing import resize, resize_mask
from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.types import Box, Size, pair


class Framing:
    """The inspected part of an image, in fractions of its size, so that images may differ in size.

    `region` is [top, left, bottom, right], each from 0 to 1; pixels outside are cut off. It is divided into `tiles`
    [rows, columns], which share `overlap` of their length with their neighbours. `ignore` is the file of a mask whose
    pixels that are not black are ignored (read as a defect mask), stretched over the whole image.

    Raises InputError for a region outside the image or without area, no tile, an overlap outside [0, 0.5], and a mask
    `ignore` that cannot be read.
    """

    def __init__(
        self, *, region: Sequence[float] | None, tiles: int | Sequence[int], overlap: float, ignore: str | None
    ):
        box = tuple(float(side) for side in region) if region is not None else (0.0, 0.0, 1.0, 1.0)
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise InputError(
                f"data.framing.region={region}: expected [top, left, bottom, right] as fractions of the image, such "
                "as [0.1, 0, 0.9, 1]"
            )
        if not 0 <= overlap <= 0.5:
            raise InputError(f"data.framing.overlap={overlap}: expected a share of a tile from 0 to 0.5")
        self.region: Box = (box[0], box[1], box[2], box[3])
        self.tiles: Size = pair(tiles, "data.framing.tiles")
        self.overlap = float(overlap)
        self.ignore = None if ignore is None else read_marks(expand(ignore))

    @property
    def count(self) -> int:
        """Number of tiles of an image."""
        return self.tiles[0] * self.tiles[1]

    def plain(self) -> dict[str, object]:
        """The settings that the pixels of a tile depend on, as plain values."""
        return {"region": self.region, "tiles": self.tiles, "overlap": self.overlap if self.count > 1 else 0.0}

    def map_size(self, image_size: Size) -> Size:
        """(height, width) of the region at the scale of tiles of `image_size` (height, width) pixels."""
        height, width = (round(side / self._length(count)) for side, count in zip(image_size, self.tiles, strict=True))
        return height, width

    @cached_property
    def boxes(self) -> list[Box]:
        """The tiles, row by row, each (top, left, bottom, right) in fractions of the image."""
        top, left, bottom, right = self.region
        rows, columns = (self._spans(count) for count in self.tiles)
        height, width = bottom - top, right - left
        return [
            (top + a * height, left + c * width, top + b * height, left + d * width)
            for a, b in rows
            for c, d in columns
        ]

    def read(
        self, record: Record, size: Size, *, white_level: int = FULL_RANGE, channels: Channels | None = None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The tiles of a record, or the one it stands for, each (H, W, 3) uint8 at `size`; and their defect mask, bool.

        The mask is of the region at `map_size`, or of the one tile at `size`. Raises InputError as `read_record`.
        """
        image, mask = read_record(record, white_level=white_level, channels=channels)
        if record.tile is not None:
            box = self.boxes[record.tile]
            return [resize(cut(image, box), size)], resize_mask(cut(mask, box), size)
        return self.tiles_of(image, size), resize_mask(cut(mask, self.region), self.map_size(size))

    def tiles_of(self, image: np.ndarray, size: Size) -> list[np.ndarray]:
        """The tiles of an image (H, W, 3) uint8, row by row, each at `size` (height, width)."""
        return [resize(cut(image, box), size) for box in self.boxes]

    def stitch(self, maps: Tensor) -> Tensor:
        """Maps of tiles (B * T, h, w), image by image, as maps of the region (B, h', w').

        In an overlap the maps are blended, their weights falling to 0 at a tile's edge, so there is no seam. The values
        of a map lie on a grid with aligned corners, as everywhere.
        """
        if self.count == 1:
            return maps
        down, across = (
            self._blend(n, count).to(maps) for n, count in zip(maps.shape[-2:], self.tiles, strict=True)
        )  # (rows, h', h), (columns, w', w)
        tiled = maps.unflatten(0, (-1, *self.tiles))  # (B, rows, columns, h, w)
        rows = torch.einsum("cxw,nachw->nahx", across, tiled)  # both axes at once would take h*w times more
        return torch.einsum("ayh,nahx->nyx", down, rows)

    def ignored(self, size: Size) -> Tensor | None:
        """(H, W) bool of the region at `size` (height, width), True = ignored; None without such pixels."""
        if self.ignore is None:
            return None
        top, left, bottom, right = pixels(self.region, self.ignore.shape[:2])
        return torch.from_numpy(resize_mask(self.ignore[top:bottom, left:right], size))

    def _length(self, count: int) -> float:
        """Length of each of `count` tiles along one side of the region."""
        return 1 / (count - (count - 1) * self.overlap)

    def _spans(self, count: int) -> list[tuple[float, float]]:
        length = self._length(count)
        starts = [i * length * (1 - self.overlap) for i in range(count)]
        return [(start, min(start + length, 1.0)) for start in starts]

    def _blend(self, n: int, count: int) -> Tensor:
        """(count, n', n) float64: the share of value j of tile i in value k of the whole; sums to 1 for every k."""
        points = np.linspace(0, 1, round(n / self._length(count)))[:, None]
        shares = []
        for start, end in self._spans(count):
            at = (points - start) / (end - start)  # 0 to 1 within the tile
            inside = (at >= -1e-9) & (at <= 1 + 1e-9)
            ramp = 1.0 if self.overlap == 0 else np.clip(np.minimum(at, 1 - at) / self.overlap, 1e-6, 1)
            corner = np.clip(1 - abs(at.clip(0, 1) * (n - 1) - np.arange(n)), 0, None)  # bilinear
            shares.append(inside * ramp * corner)
        weights = np.stack(shares)
        return torch.from_numpy(weights / weights.sum(axis=(0, 2), keepdims=True))


WHOLE = Framing(region=None, tiles=1, overlap=0.0, ignore=None)


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """The part of `image` (H, W, ...) in `box` (fractions), a view."""
    top, left, bottom, right = pixels(box, (image.shape[0], image.shape[1]))
    return image[top:bottom, left:right]
