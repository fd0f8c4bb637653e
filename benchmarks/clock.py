"""A callback for trainings that are compared over time: seconds of processor time spent in training steps alone."""

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L


class Clock(L.Callback):
    """Writes `clock.csv` into `output_dir`: step, and the processor's seconds in all steps before it, per validation.

    Processor time of a single-threaded run is what it would take alone, however busy the machine.
    """

    def __init__(self, *, output_dir: str):
        self.file = Path(output_dir) / "clock.csv"
        self.seconds = 0.0
        self._started = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start counting."""
        self._started = time.process_time()
        self.file.write_text("step,seconds\n")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop counting, and write."""
        self.seconds += time.process_time() - self._started
        with self.file.open("a", newline="") as file:
            csv.writer(file).writerow([trainer.global_step, round(self.seconds, 1)])

    def on_validation_end(self, *args: Any) -> None:
        """Go on counting."""
        self._started = time.process_time()
