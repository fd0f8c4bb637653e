"""What a training says of itself: at its start what is coming, at its end what it has learned."""

import lightning as L

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.errors import print_stdout


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


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
