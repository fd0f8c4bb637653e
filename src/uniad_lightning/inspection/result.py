"""What a detector says about one picture: score, decision, where, and how it looks.

Not in the paper, which ends in AUROC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from uniad_lightning.data.images.tiling import pixels
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.boundary import Boundary
from uniad_lightning.scoring import upsample
from uniad_lightning.types import Box

COLOURS = (matplotlib.colormaps["turbo"](np.arange(256))[:, :3] * 255).astype(np.uint8)  # (256, 3)
_ROWS = 256  # blended at once: in between, a pixel takes several times what it does before and after
_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # a region holds together across corners, as in AUPRO


class Region(NamedTuple):
    """One defective region of a picture.

    Attributes:
        box: (left, top, right, bottom) in pixels of the picture; right and bottom are the first pixels outside.
        area: its pixels.
        peak: the anomaly map's largest value in it.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float


def refuse_not_finite(scores: np.ndarray, maps: np.ndarray, names: Sequence[str]) -> None:
    """Raises InputError that names an image of whose score (B,) or map (B, h, w) nothing can be decided."""
    finite = np.isfinite(scores) & np.isfinite(maps).all(axis=(1, 2))
    if not finite.all():
        which = names[int(np.argmin(finite))]
        raise InputError(f"{which}: its score or map is not finite, so nothing is decided; is the checkpoint damaged?")


@dataclass(frozen=True, eq=False)
class Inspection:
    """What a detector says about one picture.

    Attributes:
        image: the picture, (H, W, 3) uint8 RGB.
        score: image score, larger = more anomalous; its scale is the detector's own.
        scored_map: (h, w) float32, the anomaly map of `region` at the size that was scored.
        region: the part of the picture that was looked at, in fractions of it.
        boundary: what the decision was made by; None for a detector that is not calibrated.
        familiar: False where the picture looks like no product of the training; None where that is not known.
    """

    image: np.ndarray
    score: float
    scored_map: np.ndarray
    region: Box
    boundary: Boundary | None
    familiar: bool | None

    @property
    def normalised(self) -> float | None:
        """The score in [0, 1], 0.5 at the boundary; None without one."""
        return None if self.boundary is None else self.boundary.normalised(self.score)

    @property
    def defective(self) -> bool | None:
        """The decision: whether the score is above the boundary; None without one. What is no number is not good."""
        return None if self.boundary is None else not self.score <= self.boundary.score

    @property
    def decision(self) -> str | None:
        """`defective` or `good`; None without a boundary."""
        return None if self.defective is None else "defective" if self.defective else "good"

    @cached_property
    def anomaly_map(self) -> np.ndarray:
        """(H, W) float32 at the picture's own size; the map's minimum outside the region that was looked at."""
        height, width = self.image.shape[:2]
        top, left, bottom, right = pixels(self.region, (height, width))
        inside = upsample(torch.from_numpy(self.scored_map)[None], (bottom - top, right - left))[0].numpy()
        if inside.shape == (height, width):
            return inside
        whole = np.full((height, width), self.scored_map.min(), dtype=np.float32)
        whole[top:bottom, left:right] = inside
        return whole

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool, True = defective pixel: above the boundary's `pixel` in a defective picture."""
        if self.boundary is None or not self.defective:
            return np.zeros(self.image.shape[:2], dtype=bool)
        return self.anomaly_map > self.boundary.pixel

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The 8-connected regions of `mask`, the highest peak first; none in a good picture.

        A defective picture may have none: its score is a pooled or mean value, the mask's boundary one of pixels.
        """
        if not self.mask.any():
            return ()
        labels, count = ndimage.label(self.mask, structure=_NEIGHBOURS)
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        found = []
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[rows, columns] == number
            peak = float(self.anomaly_map[rows, columns][inside].max())
            found.append(Region((columns.start, rows.start, columns.stop, rows.stop), int(areas[number]), peak))
        return tuple(sorted(found, key=lambda region: -region.peak))

    def overlay(self) -> Image.Image:
        """The picture under its anomaly map, at its own size, with a box around each defective region.

        Colours run from the map's minimum to twice the way from there to the boundary; without one to its maximum.
        """
        low = float(self.scored_map.min())
        high = float(self.scored_map.max()) if self.boundary is None else 2 * self.boundary.pixel - low
        blended = np.empty_like(self.image)
        for top in range(0, len(blended), _ROWS):
            rows = slice(top, top + _ROWS)
            scaled = (self.anomaly_map[rows] - low) * (255 / max(high - low, 1e-12))
            levels = np.clip(scaled, 0, 255).astype(np.uint8)
            blended[rows] = (self.image[rows].astype(np.uint16) * 5 + COLOURS[levels].astype(np.uint16) * 4) // 9
        sheet = Image.fromarray(blended)
        draw = ImageDraw.Draw(sheet)
        for region in self.regions:
            left, top, right, bottom = region.box
            draw.rectangle((left, top, right - 1, bottom - 1), outline="white", width=max(1, min(sheet.size) // 200))
        return sheet

    def __repr__(self) -> str:
        said = "not calibrated" if self.boundary is None else f"{self.decision}, normalised {self.normalised:.3f}"
        odd = ", looks like no product of the training" if self.familiar is False else ""
        return f"Inspection(score {self.score:.4f}, {said}, {len(self.regions)} regions{odd})"
