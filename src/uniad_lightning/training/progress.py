"""The progress bars of a training and of an evaluation."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.progress_bar import progress_bar
from uniad_lightning.types import Batch


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
        return progress_bar(label, total=total, done=done, unit="batch", shown=self._enabled)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Open the bar at the step at which the training starts or resumes."""
        data: UnifiedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._start, self._first_step = time.monotonic(), data.steps.done
        self._bar = self._open("train", data.steps.total, data.steps.done)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        """Advance by one step."""
        self._advance()
        if self._bar is None or batch_idx % 10:  # reading the loss makes a GPU wait
            return
        data: UnifiedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        speed = (data.steps.done - self._first_step) * data.batch_size / (time.monotonic() - self._start)
        last = f"/{trainer.max_epochs}" if (trainer.max_epochs or 0) > 0 else ""
        value = outputs.get("loss") if isinstance(outputs, dict) else outputs  # a method may have none
        loss = "" if value is None else f"loss {float(value):.4f}, "
        self._bar.set_postfix_str(f"epoch {trainer.current_epoch + 1}{last}, {loss}{speed:.1f} img/s", refresh=False)

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
