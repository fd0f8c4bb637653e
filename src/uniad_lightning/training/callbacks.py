"""Callbacks that every run may have: the end at an interrupt, and files of all anomaly maps."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from uniad_lightning.results.written_files import note
from uniad_lightning.training.interrupts import end_if_interrupted
from uniad_lightning.types import Batch


class EndWhenInterrupted(L.Callback):
    """Ends a run before its next batch where an interrupt has arrived that other code caught."""

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
