"""Callbacks that log a training: its speed, its settings and the results of its evaluations."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from uniad_lightning.metrics.anomaly_metrics import POOLED, Evaluation
from uniad_lightning.metrics.roc import draw_roc, image_curves, pixel_curves
from uniad_lightning.settings import flat
from uniad_lightning.tracking.loggers import Curves, defined, image_loggers, interval_numbers, logged_step, show
from uniad_lightning.types import Batch


class TrainingMonitor(L.Callback):
    """Logs `train/lr`, `train/images_per_second` and, on a GPU, `train/gpu_memory_gib` with the loss of a step.

    The speed is that since the last logged step, without evaluations; the memory is the peak in use, on one GPU.
    """

    def __init__(self) -> None:
        self._since = (0.0, 0)

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Start the clock; an epoch that is resumed in its middle does not call `on_train_epoch_start`."""
        self._since = (time.perf_counter(), pl_module.data.steps.done)

    on_train_epoch_start = on_train_start

    def on_train_batch_start(self, trainer: Any, pl_module: L.LightningModule, batch: Batch, batch_idx: int) -> None:
        """Log the learning rate of the first optimizer, at a step that is logged."""
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if groups and _is_logged(trainer, logged_step(trainer) + 1):
            pl_module.log("train/lr", groups[0]["lr"])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the speed since the last logged step, and the memory."""
        if not _is_logged(trainer, logged_step(trainer) + 1):
            return
        now, (then, batches) = time.perf_counter(), self._since
        self._since = (now, pl_module.data.steps.done)
        images = (pl_module.data.steps.done - batches) * pl_module.data.batch_size
        pl_module.log("train/images_per_second", images / (now - then))
        if pl_module.device.type == "cuda":
            pl_module.log("train/gpu_memory_gib", torch.cuda.max_memory_allocated(pl_module.device) / 2**30)


class EvaluationMonitor(L.Callback):
    """Logs the settings, each evaluation by category with its ROC curves, and at the end the checkpoints.

    `settings` are nested plain values, logged by dotted name. `last` and `config` are files that the training writes
    before it is tested.
    """

    def __init__(self, *, settings: dict[str, Any], last: Path, config: Path):
        self.settings = flat(settings)
        self.last = last
        self.config = config

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the settings."""
        for logger in trainer.loggers:
            logger.log_hyperparams(self.settings)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the metrics of each category and draw the ROC curves."""
        self._log(trainer, pl_module)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the metrics and their intervals, the settings beside them, and the checkpoints."""
        evaluation, curves = self._log(trainer, pl_module)
        step = logged_step(trainer)
        for logger in trainer.loggers:
            logger.log_metrics(interval_numbers(evaluation), step)
        show(trainer, lambda board: board.log_end(self.settings, evaluation, curves, step))
        chosen = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint) and c.monitor]
        best = Path(chosen[0].best_model_path) if chosen else None
        if best is not None:  # the checkpoint that was tested
            show(trainer, lambda board: board.log_checkpoint(best, self.config, [best.stem], evaluation))
        last = None if best else evaluation
        show(trainer, lambda board: board.log_checkpoint(self.last, self.config, ["last", "latest"], last))

    def _log(self, trainer: L.Trainer, pl_module: Any) -> tuple[Evaluation, Curves]:
        evaluation, metrics, step = pl_module.evaluation, pl_module.metrics, logged_step(trainer)
        numbers = {
            f"{metric}/{category}": value
            for category, row in evaluation.categories.items()
            for metric, value in defined(row).items()
        }
        numbers["epoch"] = trainer.current_epoch  # as Lightning adds to what `log` is given
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step)
        if not image_loggers(trainer):
            return evaluation, {}
        with metrics.sync_context():  # all ranks take part
            curves = {"roc/image": image_curves(metrics), "roc/pixel": pixel_curves(metrics)}
        show(trainer, lambda board: board.log_images(roc_plots(curves, evaluation), step))
        return evaluation, curves


def roc_plots(curves: Curves, evaluation: Evaluation) -> dict[str, Image.Image]:
    """A plot for each name in `curves`, roc/image and roc/pixel."""
    rows = {**evaluation.categories, POOLED: evaluation.pooled}
    aurocs = {
        "roc/image": {name: row.image_auroc for name, row in rows.items()},
        "roc/pixel": {name: row.pixel_auroc for name, row in rows.items()},
    }
    return {name: draw_roc(by_category, aurocs[name], title=name) for name, by_category in curves.items()}


def _is_logged(trainer: Any, step: int) -> bool:
    return trainer.log_every_n_steps > 0 and step % trainer.log_every_n_steps == 0
