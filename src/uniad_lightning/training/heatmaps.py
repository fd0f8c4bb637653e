"""Panels of image, mask, anomaly map and overlay for some test images of each category."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.decoding import read_record, resize, resize_mask
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.images.tiling import cut
from uniad_lightning.data.images.white_level import as_number
from uniad_lightning.data.records import Record
from uniad_lightning.errors import printable
from uniad_lightning.heatmap import heat_colours
from uniad_lightning.results.written_files import file_stem, note
from uniad_lightning.scoring import upsample
from uniad_lightning.tracking.loggers import image_loggers, logged_step, show
from uniad_lightning.types import Batch, Box, Size

_GAP, _TITLE = 4, 18  # pixels between the images of a panel, and of the line above each row
_UNKNOWN = 128  # grey, where a defective image has no mask: black is good


class HeatmapPanels(L.Callback):
    """Draws for each category image, mask, map and overlay of one good and some defective test images.

    Kinds of defect take turns until there are `per_category` rows. Maps share one scale within a category. Loggers show
    the same images after each evaluation, as `heatmaps/<category>`; a test writes `heatmaps/<category>.png` as well.
    """

    def __init__(self, *, output_dir: str, per_category: int):
        self.folder = Path(output_dir) / "heatmaps"
        self.per_category = per_category
        self._chosen: dict[str, list[int]] = {}
        self._wanted: set[int] = set()
        self._maps: dict[int, Tensor] = {}

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the images to draw."""
        splits = _data(trainer).splits
        self._chosen = {name: choose_images(splits.test, name, self.per_category) for name in splits.categories}
        self._wanted = {index for indices in self._chosen.values() for index in indices}
        self._maps = {}

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the maps of the chosen images; `outputs` is `AnomalyModule.test_step`'s."""
        for place, index in enumerate(batch["index"].tolist() if outputs else []):
            if index in self._wanted:
                self._maps[index] = outputs["map"][place].cpu()

    on_validation_epoch_start = on_test_epoch_start
    on_validation_batch_end = on_test_batch_end

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw for the loggers that show images."""
        if image_loggers(trainer):
            self._show(trainer, self._draw(trainer))

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw for the run folder and the loggers."""
        panels = self._draw(trainer)
        for category, panel in panels.items():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{file_stem(category)}.png"
            note(path)
            panel.save(path)
        self._show(trainer, panels)

    def _draw(self, trainer: L.Trainer) -> dict[str, Image.Image]:
        """A panel for each category, on the first process, to which the others send their maps."""
        maps = _gather(self._maps, trainer.world_size)
        if not trainer.is_global_zero:
            return {}
        data = _data(trainer)
        return {
            category: draw_panel(
                [data.splits.test[i] for i in indices],
                [maps[i] for i in indices],
                data.map_size,
                data.framing.region,
                white_level=as_number(data.white_level),
            )
            for category, indices in self._chosen.items()
            if indices
        }

    @staticmethod
    def _show(trainer: L.Trainer, panels: dict[str, Image.Image]) -> None:
        named = {f"heatmaps/{category}": panel for category, panel in panels.items()}
        show(trainer, lambda board: board.log_images(named, logged_step(trainer)))


def choose_images(records: tuple[Record, ...], category: str, count: int) -> list[int]:
    """Indices of up to `count` test images of a category: one good, then the kinds of defect in turn."""
    kinds: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        if record.category == category:
            kinds.setdefault(record.defect if record.label else "", []).append(index)
    good = kinds.pop("", [])[:1]
    most = max((len(indices) for indices in kinds.values()), default=0)
    turns = [indices[turn] for turn in range(most) for _, indices in sorted(kinds.items()) if turn < len(indices)]
    return (good + turns)[:count]


def draw_panel(
    records: list[Record], maps: list[Tensor], size: Size, region: Box, *, white_level: int = FULL_RANGE
) -> Image.Image:
    """Rows of image, mask, map and overlay: the `region` of `records` with its maps (h, w), at `size` (height, width).

    The mask of a defective image that has none is grey.
    """
    full = [upsample(m[None].float(), size)[0].numpy() for m in maps]
    low, high = min(m.min() for m in full), max(m.max() for m in full)
    height, width = size
    sheet = Image.new("RGB", (4 * (width + _GAP) + _GAP, len(records) * (height + _TITLE + _GAP) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (record, scores) in enumerate(zip(records, full, strict=True)):
        image, mask = _image_and_mask(record, size, region, white_level)
        heat = heat_colours(scores, low, high)
        overlay = (0.55 * image + 0.45 * heat).astype(np.uint8)
        top = _GAP + row * (height + _TITLE + _GAP)
        title = printable(f"{record.category} / {record.defect} / {record.image.name}")
        draw.text((_GAP, top + 2), title, fill="black")
        for column, pixels in enumerate((image, mask, heat, overlay)):
            sheet.paste(Image.fromarray(pixels), (_GAP + column * (width + _GAP), top + _TITLE))
    return sheet


def _image_and_mask(record: Record, size: Size, region: Box, white_level: int) -> tuple[np.ndarray, np.ndarray]:
    """The `region` of an image and of its mask, white = defective, both (H, W, 3) uint8 at `size`."""
    image, mask = (cut(array, region) for array in read_record(record, white_level=white_level))
    drawn = np.repeat(resize_mask(mask, size)[..., None] * np.uint8(255), 3, axis=2)
    if record.label and not record.masks:
        drawn[:] = _UNKNOWN
    return resize(image, size), drawn


def _data(trainer: L.Trainer) -> UnifiedDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]


def _gather(here: dict[int, Tensor], world_size: int) -> dict[int, Tensor]:
    """The maps of all ranks by index, on each of them."""
    if world_size == 1:
        return here
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, here)
    return {index: m for part in parts for index, m in part.items()}
