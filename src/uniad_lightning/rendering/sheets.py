"""Sheets of images: what a detector reconstructs, beside its input and the ground truth (Figs. 2b, 6, A2 and A3)."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from uniad_lightning.data.images.decoding import read_record, resize, resize_mask
from uniad_lightning.data.images.tiling import cut
from uniad_lightning.data.records import Record
from uniad_lightning.errors import printable
from uniad_lightning.heatmap import heat_colours
from uniad_lightning.rendering.renderer import Renderer
from uniad_lightning.types import Box, Size

GREY = 128  # a mask or a reference that does not exist
_GAP, _LINE = 4, 18  # pixels between images, and of a line of text


def draw_category(
    records: Sequence[Record], references: Sequence[Record], own: Renderer, others: Mapping[str, Renderer]
) -> Image.Image:
    """A row for each of the `records`: a normal reference, the input, the images of `own`, and the ground truth.

    The reconstructions of `others`, detectors on the same backbone, stand beside by their names. The normal
    `references` take turns. Anomaly maps share one scale. A missing mask or reference is grey.
    """
    engine = own.engine
    size, region = engine.map_size, engine.region
    read = [read_record(record, white_level=engine.white_level) for record in records]
    images = [image for image, _ in read]
    inputs = [resize(cut(image, region), size) for image in images]
    rendered = own.render(images)
    heat = heat_colours(rendered.map, rendered.map.min(), rendered.map.max())  # (B, H, W, 3)
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
        "overlay": (0.55 * np.stack(inputs) + 0.45 * heat).astype(np.uint8),
    }
    return draw_sheet(columns, [f"{record.category} / {record.defect} / {record.image.name}" for record in records])


def _references(references: Sequence[Record], own: Renderer, count: int) -> list[np.ndarray]:
    """`count` images of the `references` in turn, (H, W, 3) uint8 at the size of the map; grey without any."""
    engine = own.engine
    size = engine.map_size
    images = (read_record(record, white_level=engine.white_level)[0] for record in references[:count])
    normal = [resize(cut(image, engine.region), size) for image in images]
    normal = normal or [np.full((*size, 3), GREY, dtype=np.uint8)]
    return [normal[row % len(normal)] for row in range(count)]


def _ground_truth(record: Record, mask: np.ndarray, size: Size, region: Box) -> np.ndarray:
    """The `region` of a mask as (H, W, 3) uint8 at `size`, white = defective; grey for a defect without a mask."""
    if record.label and not record.masks:
        return np.full((*size, 3), GREY, dtype=np.uint8)
    return np.repeat(resize_mask(cut(mask, region), size)[..., None] * np.uint8(255), 3, axis=2)


def draw_sheet(columns: Mapping[str, Sequence[np.ndarray] | np.ndarray], labels: Sequence[str]) -> Image.Image:
    """Columns of images (H, W, 3) uint8 of one size under their titles, with a label above each row."""
    height, width = next(iter(columns.values()))[0].shape[:2]
    step = height + _LINE + _GAP
    sheet = Image.new("RGB", (len(columns) * (width + _GAP) + _GAP, _LINE + len(labels) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(labels):
        draw.text((_GAP, _LINE + row * step + 2), printable(label), fill="black")
    for column, (title, images) in enumerate(columns.items()):
        left = _GAP + column * (width + _GAP)
        draw.text((left, 4), printable(title), fill="black")
        for row, pixels in enumerate(images):
            sheet.paste(Image.fromarray(pixels), (left, 2 * _LINE + row * step))
    return sheet
