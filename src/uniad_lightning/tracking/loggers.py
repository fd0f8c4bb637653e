"""Loggers that cannot stop a training, and the interface of those that show more than curves."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyExperiment
from PIL import Image
from tqdm import tqdm

from uniad_lightning.errors import one_line, printable
from uniad_lightning.files.user_path import expand
from uniad_lightning.metrics.anomaly_metrics import POOLED, Evaluation, Row
from uniad_lightning.metrics.roc import Curve
from uniad_lightning.results.run_folder import ENDS, interval_ends, rows

Curves = Mapping[str, Mapping[str, Curve]]  # ROC curves by name, and then by category
Result = TypeVar("Result")


class Board:
    """A logger that shows more than curves; `step` is that of the curves."""

    def log_images(self, images: Mapping[str, Image.Image], step: int) -> None:
        """Show images under their names."""

    def log_end(self, settings: Mapping[str, Any], evaluation: Evaluation, curves: Curves, step: int) -> None:
        """Show the last evaluation as a whole, beside the flat `settings` of the run."""

    def log_checkpoint(self, file: Path, config: Path, aliases: Sequence[str], evaluation: Evaluation | None) -> None:
        """Keep a checkpoint and the configuration of its training, with its evaluation where there is one."""

    def finish(self) -> None:
        """End the run, if it has started."""


class FaultTolerantLogger(Logger):
    """A logger that does not end the training when it fails: it prints one warning, and logs nothing more."""

    def __init__(self, logger: Logger):
        super().__init__()
        self.logger = logger
        self._silent = False

    def _attempt(self, action: Callable[[], Result], otherwise: Result) -> Result:
        if self._silent:
            return otherwise
        try:
            return action()
        except Exception as error:  # whatever a logger raises must not end the training
            self._silent = True
            name = type(self.logger).__name__
            line = f"uniad: warning: {name} failed and is silent from here on: {one_line(error)}"
            tqdm.write(printable(line), file=sys.stderr)  # `print` would continue the line of a progress bar
            if isinstance(self.logger, Board):
                with suppress(Exception):
                    self.logger.finish()  # left open, it would also log the next job of a sweep
            return otherwise

    @property
    def experiment(self) -> Any:
        """The logger's own; Lightning reads it at the start of a run, which opens it."""
        return self._attempt(lambda: self.logger.experiment, DummyExperiment())  # type: ignore[attr-defined]

    @property
    def name(self) -> str | None:
        """The logger's own."""
        return self._attempt(lambda: self.logger.name, None)

    @property
    def version(self) -> int | str | None:
        """The logger's own."""
        return self._attempt(lambda: self.logger.version, None)

    @property
    def save_dir(self) -> str | None:
        """The logger's own."""
        return self._attempt(lambda: self.logger.save_dir, None)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log numbers."""
        self._attempt(lambda: self.logger.log_metrics(metrics, step), None)

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Log settings."""
        self._attempt(lambda: self.logger.log_hyperparams(params), None)

    def save(self) -> None:
        """Write what was logged so far."""
        self._attempt(self.logger.save, None)

    def finalize(self, status: str) -> None:
        """Called by Lightning at the end of a fit and of a test, with "success" or "failed"."""
        self._attempt(lambda: self.logger.finalize(status), None)

    def show(self, action: Callable[[Board], None]) -> None:
        """Do `action` with the logger if it shows more than curves."""
        board = self.logger
        if isinstance(board, Board):
            self._attempt(lambda: action(board), None)

    def finish(self) -> None:
        """End the run."""
        self.show(lambda board: board.finish())


def image_loggers(trainer: L.Trainer) -> list[FaultTolerantLogger]:
    """The loggers of a trainer that show more than curves; the same on all ranks, also after a failure."""
    return [
        logger
        for logger in trainer.loggers
        if isinstance(logger, FaultTolerantLogger) and isinstance(logger.logger, Board)
    ]


def show(trainer: L.Trainer, action: Callable[[Board], None]) -> None:
    """Do `action` with each of `image_loggers`, on the first rank."""
    if trainer.is_global_zero:
        for logger in image_loggers(trainer):
            logger.show(action)


def logged_step(trainer: L.Trainer) -> int:
    """The step that Lightning logs numbers at now, which it has no public name for."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def continues(folder: Path, ckpt_path: str | None, *, overwrite: bool) -> bool:
    """Whether a training from the checkpoint `ckpt_path` goes on with that of its run `folder`."""
    return ckpt_path is not None and not overwrite and folder.resolve() in expand(ckpt_path).resolve().parents


def defined(row: Row) -> dict[str, float]:
    """The metrics of a row that are not NaN."""
    return {name: value for name in Row._fields[1:] if (value := getattr(row, name)) == value}


def interval_numbers(evaluation: Evaluation) -> dict[str, float]:
    """The ends of all intervals, by the logged name of their number and `_low` or `_high`."""
    ends: dict[str, float] = {}
    for row, intervals in evaluation.intervals.items():
        for metric, interval in intervals.items():
            name = f"{row}/{metric}" if row in ("mean", POOLED) else f"{metric}/{row}"
            ends |= {f"{name}_{end}": value for end, value in interval._asdict().items()}
    return ends


def table(evaluation: Evaluation) -> tuple[list[Any], list[list[Any]]]:
    """The names of the columns of an evaluation's table and its rows: each category, the mean and all pooled."""
    lines = [[name, *row, *interval_ends(evaluation, name)] for name, row in rows(evaluation)]
    return ["category", *Row._fields, *ENDS], lines
