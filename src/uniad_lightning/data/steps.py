"""How long a training is and how far it has come, in batches and in optimizer steps."""

from typing import NamedTuple

import lightning as L


class TrainingSteps(NamedTuple):
    """The length of the training of a `trainer` whose loader has `batches` batches."""

    trainer: L.Trainer
    batches: int

    @property
    def per_epoch(self) -> int:
        """Batches of one epoch, as many as the trainer's limit_train_batches leaves where there is one."""
        limit = self.trainer.limit_train_batches
        return min(self.batches, limit) if isinstance(limit, int) else int(self.batches * limit)  # as Lightning has it

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training, where one steps at a time; 0 where nothing sets an end."""
        # Not the trainer's own estimate: asking for it starts the loader before a checkpoint's position is restored.
        by_epochs = (self.trainer.max_epochs or 0) * self._steps_per_epoch
        return min((steps for steps in (by_epochs, self.trainer.max_steps) if steps > 0), default=0)

    @property
    def total(self) -> int:
        """Batches of the whole training; 0 where nothing sets an end."""
        epochs, steps = divmod(self.total_steps, self._steps_per_epoch)
        return epochs * self.per_epoch + min(steps * self.trainer.accumulate_grad_batches, self.per_epoch)

    @property
    def done(self) -> int:
        """Batches that were trained on, by Lightning's own count, however many optimizers stepped at each."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.total.processed  # type: ignore[attr-defined]

    @property
    def _steps_per_epoch(self) -> int:
        return -(-self.per_epoch // self.trainer.accumulate_grad_batches)
