"""What watches a run: progress, pictures and maps."""

import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import matplotlib
import numpy as np
import torch
from lightning.pytorch.callbacks import ProgressBar
from PIL import Image, ImageDraw
from torch import Tensor
from tqdm import tqdm

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.decoding import read_record, resize, resize_mask
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.images.tiling import cut
from uniad_lightning.data.images.white_level import as_number
from uniad_lightning.data.records import Record
from uniad_lightning.errors import printable
from uniad_lightning.results.written_files import file_stem, note
from uniad_lightning.scoring import upsample
from uniad_lightning.tracking.loggers import logged_step, picture_loggers, show
from uniad_lightning.training.interrupts import end_if_interrupted
from uniad_lightning.types import Batch, Box, Size


class TrainingProgress(ProgressBar):
    """One bar over all steps of the training with ETA, loss and images per second; one over the final evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: tqdm | None = None
        self._enabled = True
        self._start = 0.0
        self._first_step = 0

    def disable(self) -> None:
        """Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """The opposite of `disable`."""
        self._enabled = True

    def _open(self, label: str, total: int, done: int = 0) -> tqdm:
        # In a log file every refresh would be a line of its own.
        return tqdm(
            total=total, initial=done, desc=label, unit="step", disable=not self._enabled, dynamic_ncols=True,
            mininterval=0.2 if self.is_terminal() else 30,
        )  # fmt: skip

    @staticmethod
    def is_terminal() -> bool:
        """Whether the bar's stream, stderr, is a terminal."""
        return sys.stderr.isatty()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Open the bar at the step the training starts or resumes from."""
        data = _data(trainer)
        self._start, self._first_step = time.monotonic(), data.batches_done
        self._bar = self._open("train", data.total_batches, data.batches_done)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Advance by one step."""
        self._advance()
        if batch_idx % 10:  # reading the loss makes a GPU wait
            return
        data = _data(trainer)
        speed = (data.batches_done - self._first_step) * data.batch_size / (time.monotonic() - self._start)
        last = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs  # a method may have none
        shown = "" if loss is None else f"loss {float(loss):.4f}, "
        if self._bar is not None:
            self._bar.set_postfix_str(
                f"epoch {trainer.current_epoch + 1}{last}, {shown}{speed:.1f} img/s", refresh=False
            )

    def _advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error stands on a line of its own."""
        self._close()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Open the bar of an evaluation."""
        self._bar = self._open("evaluate", int(sum(trainer.num_test_batches)))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Advance by one batch."""
        self._advance()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the bar."""
        self._close()


class EndWhenInterrupted(L.Callback):
    """Ends a run before its next batch where an interrupt has arrived that something kept to itself."""

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Called by Lightning before each batch."""
        end_if_interrupted()

    on_validation_batch_start = on_train_batch_start
    on_test_batch_start = on_train_batch_start


class SaveMaps(L.Callback):
    """Writes `maps/<index>.npz` for every evaluated image; all metrics can be recomputed from these files.

    Each holds `map` (H, W) float32 and `mask` (H, W) bool at evaluation size, `score`, `label`, `category` (its name)
    and `path`.
    """

    def __init__(self, *, output_dir: str):
        self.folder = Path(output_dir) / "maps"

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the files of one batch; `outputs` is `AnomalyModule.test_step`'s."""
        if not outputs:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        records = trainer.datamodule.splits.test  # type: ignore[attr-defined]
        for i, index in enumerate(batch["index"].tolist()):
            path = self.folder / f"{index}.npz"
            note(path)
            np.savez(
                path,
                map=outputs["map"][i].cpu().numpy(),
                mask=batch["mask"][i].cpu().numpy(),
                score=outputs["score"][i].item(),
                label=batch["label"][i].item(),
                category=records[index].category,
                path=str(records[index].image),
            )


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
        self._chosen = {category: choose(splits.test, category, self.per_category) for category in splits.categories}
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
        """Draw for the loggers that show pictures."""
        if picture_loggers(trainer):
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
        show(trainer, lambda board: board.log_pictures(named, logged_step(trainer)))


def _data(trainer: L.Trainer) -> UnifiedDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]


def choose(records: tuple[Record, ...], category: str, count: int) -> list[int]:
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
    gap, head = 4, 18
    height, width = size
    sheet = Image.new("RGB", (4 * (width + gap) + gap, len(records) * (height + head + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (record, scores) in enumerate(zip(records, full, strict=True)):
        whole, defects = read_record(record, white_level=white_level)
        image, mask = resize(cut(whole, region), size), resize_mask(cut(defects, region), size)
        truth = np.repeat(mask[..., None] * np.uint8(255), 3, axis=2)
        if record.label and not record.masks:
            truth[:] = 128  # defective, but not known where: grey, since black is good
        strength = (scores - low) / max(high - low, 1e-12)
        heat = (matplotlib.colormaps["turbo"](strength)[..., :3] * 255).astype(np.uint8)
        overlay = (0.55 * image + 0.45 * heat).astype(np.uint8)
        top = gap + row * (height + head + gap)
        text = printable(f"{record.category} / {record.defect} / {record.image.name}")
        draw.text((gap, top + 2), text, fill="black")
        shown = (image, truth, heat, overlay)
        for column, pixels in enumerate(shown):
            sheet.paste(Image.fromarray(pixels), (gap + column * (width + gap), top + head))
    return sheet


def _gather(here: dict[int, Tensor], world_size: int) -> dict[int, Tensor]:
    if world_size == 1:
        return here
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, here)
    return {index: m for part in parts for index, m in part.items()}
