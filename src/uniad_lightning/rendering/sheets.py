"""Sheets of images: what a detector reconstructs, beside its input and the ground truth (Figs. 2b, 6, A2 and A3)."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from uniad_lightning.data.images.decoding import read_record
from uniad_lightning.data.images.resizing import resize, resize_mask
from uniad_lightning.data.images.tiling import cut
from uniad_lightning.data.records import Record
from uniad_lightning.heatmap import Scale, heat_colours, overlay
from uniad_lightning.rendering.renderer import Renderer
from uniad_lightning.results.sheets import draw_sheet
from uniad_lightning.types import Box, Size

GREY = 128  # a mask or a reference that does not exist


def draw_category(
    records: Sequence[Record], references: Sequence[Record], own: Renderer, others: Mapping[str, Renderer]
) -> Image.Image:
    """A row for each of the `records`: a normal reference, the input, the images of `own`, and the ground truth.

    The reconstructions of `others`, detectors on the same backbone, stand beside by their names. The normal
    `references` take turns. Anomaly maps share one scale. A missing mask or reference is grey, and where no
    image has a mask there is no column of them.
    """
    engine = own.engine
    size, region = engine.map_size, engine.region
    read = [read_record(record, white_level=engine.white_level, channels=engine.channels) for record in records]
    images = [image for image, _ in read]
    inputs = [resize(cut(image, region), size) for image in images]
    rendered = own.render(images)
    scale = Scale.of(list(rendered.map), None)
    heat = heat_colours(rendered.map, scale.low, scale.high)  # (B, H, W, 3)
    columns: dict[str, Sequence[np.ndarray] | np.ndarray] = {
        "normal reference": _references(references, own, len(records)),
        "input": inputs,
        "its features": rendered.features,
        "reconstruction": rendered.reconstruction,
        **{name: other.render(images).reconstruction for name, other in others.items()},
        "ground truth": [
            _ground_truth(record, mask, size, region) for record, (_, mask) in zip(records, read, strict=True)
        ],
        "anomaly map": heat,
        "overlay": [overlay(image, scores, scale) for image, scores in zip(inputs, rendered.map, strict=True)],
    }
    if not any(record.masks for record in records):
        del columns["ground truth"]
    labels = [f"{record.category}/{record.defect}/{record.image.name}" for record in records]
    return draw_sheet(columns, labels, scale=scale)


def _references(references: Sequence[Record], own: Renderer, count: int) -> list[np.ndarray]:
    """`count` images of the `references` in turn, (H, W, 3) uint8 at the size of the map; grey without any."""
    engine = own.engine
    size = engine.map_size
    images = (
        read_record(record, white_level=engine.white_level, channels=engine.channels)[0]
        for record in references[:count]
    )
    normal = [resize(cut(image, engine.region), size) for image in images]
    normal = normal or [np.full((*size, 3), GREY, dtype=np.uint8)]
    return [normal[row % len(normal)] for row in range(count)]


def _ground_truth(record: Record, mask: np.ndarray, size: Size, region: Box) -> np.ndarray:
    """The `region` of a mask as (H, W, 3) uint8 at `size`, white = defective; grey for a defect without a mask."""
    if record.label and not record.masks:
        return np.full((*size, 3), GREY, dtype=np.uint8)
    return np.repeat(resize_mask(cut(mask, region), size)[..., None] * np.uint8(255), 3, axis=2)
