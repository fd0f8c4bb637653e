"""Sheets of image, mask, anomaly map and overlay: some test images of each category, and the worst of all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.decoding import read_record
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.images.resizing import resize, resize_mask
from uniad_lightning.data.images.tiling import cut
from uniad_lightning.data.images.white_level import as_number
from uniad_lightning.data.records import Record
from uniad_lightning.heatmap import Scale, heat_colours, overlay
from uniad_lightning.results.decisions import Limits, ScoredRecord, limits_of
from uniad_lightning.results.run_folder import HEATMAPS, MISTAKES
from uniad_lightning.results.sheets import draw_sheet
from uniad_lightning.results.written_files import file_stem, note
from uniad_lightning.scoring import upsample
from uniad_lightning.tracking.loggers import image_loggers, logged_step, show
from uniad_lightning.training.mistakes import Worst, WorstImages
from uniad_lightning.types import Batch, Box, Size

_UNKNOWN = 128  # grey, where a defective image has no mask: black is good


class HeatmapPanels(L.Callback):
    """Draws for each category image, mask, map and overlay of one good and some defective test images.

    Kinds of defect take turns until there are `per_category` rows. Loggers show the same images after each evaluation,
    as `heatmaps/<category>`; a test writes `heatmaps/<category>.png` as well, and `mistakes.png` with the `mistakes`
    good images that have the highest scores, and as many defective ones that have the lowest.

    `calibration`, the entry of a checkpoint, gives boundaries to an evaluation; a training has none.
    """

    calibration: Mapping[str, Any] | None = None

    def __init__(self, *, output_dir: str, per_category: int, mistakes: int = 5):
        self.folder = Path(output_dir)
        self.per_category = per_category
        self.mistakes = mistakes
        self._chosen: dict[str, list[int]] = {}
        self._limits: dict[str, Limits | None] = {}
        self._shown: dict[int, Worst] = {}
        self._worst = WorstImages(mistakes)

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the images to draw."""
        splits = _data(trainer).splits
        self._chosen = {name: choose_images(splits.test, name, self.per_category) for name in splits.categories}
        self._limits = {name: limits_of(self.calibration, name) for name in splits.categories}
        self._shown = {}
        self._worst = WorstImages(self.mistakes)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the maps of the chosen images and of the worst; `outputs` is `AnomalyModule.test_step`'s."""
        if not outputs:
            return
        records, wanted = _data(trainer).splits.test, {index for chosen in self._chosen.values() for index in chosen}
        for index, score, anomaly_map in zip(
            batch["index"].tolist(), outputs["score"].tolist(), outputs["map"], strict=True
        ):
            record = records[index]
            found = Worst(index, ScoredRecord(record, score, self._limits[record.category]), anomaly_map)
            self._worst.add([found])
            if index in wanted:
                self._shown[index] = found._replace(map=anomaly_map.cpu())

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
            self._save(Path(HEATMAPS) / f"{file_stem(category)}.png", panel)
        self._show(trainer, panels)
        worst = WorstImages(self.mistakes)
        worst.add(found for part in _gather(self._worst.kept, trainer.world_size) for found in part)
        if worst.kept and trainer.is_global_zero:
            self._save(Path(MISTAKES), _panel(_data(trainer), worst.ordered(), "worst test images"))

    def _save(self, name: Path, panel: Image.Image) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        note(path)
        panel.save(path)

    def _draw(self, trainer: L.Trainer) -> dict[str, Image.Image]:
        """A panel for each category, on the first process, to which the others send their maps."""
        shown = {index: found for part in _gather(self._shown, trainer.world_size) for index, found in part.items()}
        if not trainer.is_global_zero:
            return {}
        return {
            category: _panel(_data(trainer), [shown[i] for i in indices], category)
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
    images: Sequence[ScoredRecord],
    maps: Sequence[Tensor],
    size: Size,
    region: Box,
    *,
    heading: str,
    white_level: int = FULL_RANGE,
    channels: Channels | None = None,
) -> Image.Image:
    """Rows of image, mask, map and overlay: the `region` of `images` with its maps (h, w), at `size` (height, width).

    All maps have one scale of colours. The mask of a defective image that has none is grey, and where no image has
    one there is no column of masks. A `heading` that is the category is not repeated in the rows.
    """
    full = [upsample(m[None].float(), size)[0].numpy() for m in maps]
    scale, full = _one_scale(full, [image.limits for image in images])
    read = [_image_and_mask(image.record, size, region, white_level, channels) for image in images]
    columns = {
        "image": [pixels for pixels, _ in read],
        "mask": [mask for _, mask in read],
        "anomaly map": [heat_colours(scores, scale.low, scale.high) for scores in full],
        "overlay": [overlay(pixels, scores, scale) for (pixels, _), scores in zip(read, full, strict=True)],
    }
    if not any(image.record.masks for image in images):
        del columns["mask"]
    names = [(i.record.category, i.record.defect, i.record.image.name) for i in images]
    labels = ["/".join(name[1:] if name[0] == heading else name) for name in names]
    return draw_sheet(columns, labels, notes=list(map(_decided, images)), heading=heading, scale=scale)


def _one_scale(maps: list[np.ndarray], limits: Sequence[Limits | None]) -> tuple[Scale, list[np.ndarray]]:
    """A scale for all maps; where their boundaries differ, they are stretched so that each boundary is at 1."""
    boundaries = [one.pixel for one in limits if one is not None]
    if len(set(boundaries)) < 2:
        return Scale.of(maps, boundaries[0] if boundaries else None), maps
    low = min(float(m.min()) for m in maps)
    low = min(low, min(boundaries) - 1e-12)
    stretched = [(m - low) / (boundary - low) for m, boundary in zip(maps, boundaries, strict=True)]
    return Scale(0.0, 2.0, 1.0), stretched


def _decided(image: ScoredRecord) -> str:
    """Score and decision in words."""
    if image.limits is None:
        return f"score {image.score:.3g}"
    sign = ">" if image.decision == "defective" else "≤"
    wrong = f" ({image.mistake})" if image.mistake else ""
    return f"score {image.score:.3g} {sign} {image.limits.score:.3g}: {image.decision}{wrong}"


def _image_and_mask(
    record: Record, size: Size, region: Box, white_level: int, channels: Channels | None
) -> tuple[np.ndarray, np.ndarray]:
    """The `region` of an image and of its mask, white = defective, both (H, W, 3) uint8 at `size`."""
    read = read_record(record, white_level=white_level, channels=channels)
    image, mask = (cut(array, region) for array in read)
    drawn = np.repeat(resize_mask(mask, size)[..., None] * np.uint8(255), 3, axis=2)
    if record.label and not record.masks:
        drawn[:] = _UNKNOWN
    return resize(image, size), drawn


def _data(trainer: L.Trainer) -> UnifiedDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]


def _panel(data: UnifiedDataModule, found: Sequence[Worst], heading: str) -> Image.Image:
    images, maps = [one.image for one in found], [one.map for one in found]
    region, level = data.framing.region, as_number(data.white_level)
    return draw_panel(images, maps, data.map_size, region, heading=heading, white_level=level, channels=data.channels)


def _gather(here: Any, world_size: int) -> list[Any]:
    """What each rank has `here`, on each of them."""
    if world_size == 1:
        return [here]
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, here)
    return parts
