"""What a training says of itself: at its start what is coming, at its end what it has learned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import print_stdout
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.models.losses import MSELoss
from uniad_lightning.training.build import warn
from uniad_lightning.training.loss_picture import draw_loss

_HARDLY = 0.5  # of the features' variance


def announce(trainer: L.Trainer, data: UnifiedDataModule, *, done: int = 0) -> None:
    """Print how long the training is, in one line; `done` are the steps that a resumed one has behind it."""
    if not trainer.is_global_zero:
        return
    images, epochs = len(data.splits.train), data.steps.total // data.steps.per_epoch
    categories = len({record.category for record in data.splits.train})
    what = f"{_count(images, 'image')} of {_count(categories, 'category', 'categories')}"
    if data.one_pass:
        print_stdout(f"training: one pass over {what}", flush=True)
        return
    length = _count(epochs, "epoch") if epochs else "less than one epoch"
    behind = f", {done} of them done" if done else ""
    together = data.batch_size * trainer.accumulate_grad_batches
    steps = f"{_count(data.steps.total_steps, 'step')} of {_count(together, 'image')}{behind}"
    print_stdout(f"training: {steps}, {length} of {what}", flush=True)


def learned(trainer: L.Trainer, module: L.LightningModule, folder: Path) -> dict[str, float]:
    """After a training, draws its loss in the run `folder`; returns the entry `features_explained` of metrics.json.

    That is 1 - the mean loss of the last epoch.

    Standardised features have a variance of 1, so of a mean squared error that is the share of it which the network
    explains. Empty for other methods, losses and features, and where nothing was trained.
    """
    if trainer.is_global_zero:
        draw_loss(folder)
    loss = trainer.callback_metrics.get("train/loss_epoch")
    if loss is None or not isinstance(module, FeatureReconstruction) or not isinstance(module.standardize, Standardize):
        return {}
    return {"features_explained": 1 - float(loss)} if type(module.loss).forward is MSELoss.forward else {}


def show_learned(facts: Mapping[str, Any]) -> None:
    """Print those entries of metrics.json that say what a training has learned, with a warning where that is little."""
    explained, yardstick = facts.get("features_explained"), facts.get("yardstick")
    if explained is not None:
        share = f"{100 * explained:.0f} %" if explained > 0 else "nothing"
        print_stdout(f"features explained: {share} (1 - last training loss)")
        if explained < _HARDLY:
            warn(
                f"the network explains {share} of the features' variance: it has hardly learned; train "
                "longer (trainer.max_steps or max_epochs)"
            )
    if "untrained" in facts:
        print_stdout(f"before the training: {_metrics(facts['untrained'])}")
    if yardstick:
        print_stdout(f"a memory bank of the same features: {_metrics(yardstick)} (yardstick=false leaves this out)")


def _metrics(values: Mapping[str, float]) -> str:
    """Metrics by name, in 0..1, as words and percent."""
    return ", ".join(f"{name.replace('_auroc', ' AUROC')} {100 * value:.1f}" for name, value in values.items())


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
