"""The result for one image: score, decision, defective regions and overlay.

Not in the paper, which ends in AUROC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from uniad_lightning.data.images.pixel_box import pixels
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.boundary import Boundary
from uniad_lightning.inspection.enlarging import enlarged
from uniad_lightning.types import Box

_ROWS = 256  # blended at once: a pixel takes several times its final memory meanwhile
_EXTENT = 0.75  # measured on real defects, beside quantiles of good images' pixels: docs/inspection.md
_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # regions are joined across corners, as in AUPRO


class Region(NamedTuple):
    """One defective region of an image.

    Attributes:
        box: (left, top, right, bottom) in pixels of the image; right and bottom are the first pixels outside.
        area: number of its pixels.
        peak: the anomaly map's largest value in it.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float


def refuse_not_finite(scores: np.ndarray, maps: np.ndarray, names: Sequence[str]) -> None:
    """Raises InputError that names an image whose score (B,) or map (B, h, w) is not finite."""
    finite = np.isfinite(scores) & np.isfinite(maps).all(axis=(1, 2))
    if not finite.all():
        name = names[int(np.argmin(finite))]
        raise InputError(f"{name}: its score or map is not finite, so there is no decision; is the checkpoint damaged?")


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of a detector for one image.

    Attributes:
        image: the image, (H, W, 3) uint8 RGB.
        score: image score, larger = more anomalous; its scale is the detector's own.
        scored_map: anomaly map (h, w) float32 of `region`, at the size at which the image was scored.
        region: the part of the image that was inspected, in fractions of it.
        category: the category that was given, or found in the image; None where the detector cannot tell.
        boundary: boundary of the decision; None for a detector that is not calibrated.
        familiar: False where the image resembles no category of the training; None where that is not known.
    """

    image: np.ndarray
    score: float
    scored_map: np.ndarray
    region: Box
    category: str | None
    boundary: Boundary | None
    familiar: bool | None

    @property
    def normalised(self) -> float | None:
        """The score in [0, 1], 0.5 at the boundary; None without one."""
        return None if self.boundary is None else self.boundary.normalised(self.score)

    @property
    def defective(self) -> bool | None:
        """The decision: whether the score is above the boundary, also if it is NaN; None without a boundary."""
        return None if self.boundary is None else not self.score <= self.boundary.score

    @property
    def decision(self) -> str | None:
        """`defective`, `good`, or `unknown`: below the boundary, but unfamiliar. None without a boundary."""
        if self.defective is None:
            return None
        return "defective" if self.defective else "unknown" if self.familiar is False else "good"

    @cached_property
    def anomaly_map(self) -> np.ndarray:
        """(H, W) float32 at the image's own size; outside the inspected region, the map's minimum."""
        height, width = self.image.shape[:2]
        top, left, bottom, right = pixels(self.region, (height, width))
        inside = enlarged(self.scored_map, (bottom - top, right - left))
        if inside.shape == (height, width):
            return inside
        whole = np.full((height, width), self.scored_map.min(), dtype=np.float32)
        whole[top:bottom, left:right] = inside
        return whole

    @cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool, True = defective pixel, of which a defective image has at least one.

        Marked are the regions of the map that hold a pixel above the boundary's `pixel`, or its largest value where
        none is. They extend down to that boundary, or to three quarters of the way from the map's median to its peak
        where that is lower.
        """
        heat = self.anomaly_map
        if self.boundary is None or not self.defective:
            return np.zeros(heat.shape, dtype=bool)
        peak, median, boundary = float(heat.max()), float(np.median(self.scored_map)), self.boundary.pixel
        certain = heat > boundary if peak > boundary else heat >= peak
        labels, _ = ndimage.label(
            certain | (heat > min(boundary, median + _EXTENT * (peak - median))), structure=_NEIGHBOURS
        )
        return np.isin(labels, np.unique(labels[certain]))

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The 8-connected regions of `mask`, the highest peak first; none in a good image."""
        if not self.mask.any():
            return ()
        labels, count = ndimage.label(self.mask, structure=_NEIGHBOURS)
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        regions = []
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
            inside = labels[rows, columns] == number
            peak = float(self.anomaly_map[rows, columns][inside].max())
            regions.append(Region((columns.start, rows.start, columns.stop, rows.stop), int(areas[number]), peak))
        return tuple(sorted(regions, key=lambda region: -region.peak))

    def overlay(self) -> Image.Image:
        """The image at its own size, coloured where its anomaly map is above the boundary; a box around each region.

        Colours range from the map's minimum (blue) to twice as far as the boundary (red), without a boundary to its
        maximum. Boxes are white in black ones, of a width that is still seen where a large image is shown small.
        """
        from uniad_lightning.heatmap import Scale, overlay  # matplotlib, which only those need who draw

        scale = Scale.of([self.scored_map], None if self.boundary is None else self.boundary.pixel)
        blended = np.empty_like(self.image)
        for top in range(0, len(blended), _ROWS):
            rows = slice(top, top + _ROWS)
            blended[rows] = overlay(self.image[rows], self.anomaly_map[rows], scale)
        sheet = Image.fromarray(blended)
        draw = ImageDraw.Draw(sheet)
        width = max(1, max(sheet.size) // 250)
        edge = max(1, width // 2)
        for region in self.regions:
            left, top, right, bottom = region.box
            outer = (left - edge, top - edge, right - 1 + edge, bottom - 1 + edge)
            draw.rectangle(outer, outline="black", width=edge)
            draw.rectangle((left, top, right - 1, bottom - 1), outline="white", width=width)
        return sheet

    def __repr__(self) -> str:
        decision = "not calibrated" if self.boundary is None else f"{self.decision}, normalised {self.normalised:.3f}"
        unfamiliar = ", resembles no category of the training" if self.familiar is False else ""
        return f"Inspection(score {self.score:.4f}, {decision}, {len(self.regions)} regions{unfamiliar})"
