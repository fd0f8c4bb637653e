"""The loggers of W&B and TensorBoard. W&B is imported when it is used."""

import secrets
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from PIL import Image

from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.tracking.loggers import Board, Curves, continues, defined, table

STEP = "trainer/global_step"  # the x-axis of Lightning's WandbLogger


class WandbBoard(Board, WandbLogger):
    """A W&B run, named by its folder. A training resumed from a checkpoint in its own folder continues its run.

    `save_dir` is the run folder, `ckpt_path` and `overwrite` those of the training; with `upload_checkpoint` the
    checkpoint is kept at W&B. Timeouts in seconds: W&B fails if it has not started by then; data not uploaded by then
    at the end stay on the disk for `wandb sync`.
    """

    def __init__(
        self,
        *,
        save_dir: str,
        project: str,
        entity: str | None,
        name: str | None,
        group: str | None,
        tags: Sequence[str],
        job_type: str | None,
        offline: bool,
        ckpt_path: str | None,
        overwrite: bool,
        upload_checkpoint: bool,
        init_timeout: float,
        finish_timeout: float,
    ):
        folder = expand(save_dir)
        self._id_file = folder / "wandb" / "run_id"
        resumed = continues(folder, ckpt_path, overwrite=overwrite)
        super().__init__(
            save_dir=str(folder),
            project=project,
            entity=entity,
            name=name or folder.name,
            group=group,
            tags=list(tags),
            job_type=job_type,
            id=_saved_id(self._id_file) if resumed else secrets.token_hex(4),
            mode="offline" if offline else None,  # WandbLogger's `offline` would last for the rest of the process
            settings={"init_timeout": init_timeout, "finish_timeout": finish_timeout},
        )
        _drop_anonymous(self)
        self._upload_checkpoint = upload_checkpoint
        self._opened = self._failed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; opened, and its id saved, at the first access."""
        run = super().experiment
        if not self._opened:
            self._opened = True
            self._id_file.parent.mkdir(parents=True, exist_ok=True)
            self._id_file.write_text(f"{run.id}\n")
        return run

    def log_images(self, images: Mapping[str, Image.Image], step: int) -> None:
        """Show images under their names."""
        import wandb

        logged = {name: wandb.Image(image, file_type="jpg") for name, image in images.items()}
        self.experiment.log({**logged, STEP: step})

    def log_end(self, settings: Mapping[str, Any], evaluation: Evaluation, curves: Curves, step: int) -> None:
        """Log a table with a row for each category, `results`, and the ROC curves as charts, `<name>_chart`."""
        import wandb

        charts = {
            f"{name}_chart": wandb.plot.line_series(
                xs=[curve.false_positives.tolist() for curve in by_category.values()],
                ys=[curve.true_positives.tolist() for curve in by_category.values()],
                keys=list(by_category),
                title=name,
                xname="false-positive rate",
            )
            for name, by_category in curves.items()
            if by_category
        }
        self.experiment.log({"results": wandb.Table(*table(evaluation)), **charts, STEP: step})

    def log_checkpoint(self, file: Path, config: Path, aliases: Sequence[str], evaluation: Evaluation | None) -> None:
        """Upload a version of the artifact `model-<run id>`, the means of its evaluation as metadata."""
        import wandb

        if self._upload_checkpoint:
            run = self.experiment
            artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=means(evaluation))
            for path in (file, config):
                artifact.add_file(str(path), skip_cache=True)
            run.log_artifact(artifact, aliases=list(aliases))

    def finalize(self, status: str) -> None:
        """Called by Lightning at the end of a fit and of a test, with "success" or "failed"."""
        super().finalize(status)
        self._failed = status == "failed"

    def finish(self) -> None:
        """End the run, if it has started, as finished or failed."""
        if self._opened:
            self.experiment.finish(exit_code=int(self._failed))


class TensorBoard(Board, TensorBoardLogger):
    """Event files for TensorBoard in `<save_dir>/tensorboard`.

    Raises InputError where the package `tensorboard` is missing.
    """

    def __init__(self, *, save_dir: str):
        if find_spec("tensorboard") is None:
            raise InputError("logger=tensorboard: needs the package tensorboard; pip install tensorboard")
        super().__init__(save_dir=save_dir, name="tensorboard", default_hp_metric=False)

    def log_images(self, images: Mapping[str, Image.Image], step: int) -> None:
        """Show images under their names."""
        for name, image in images.items():
            self.experiment.add_image(name, np.asarray(image), step, dataformats="HWC")

    def log_end(self, settings: Mapping[str, Any], evaluation: Evaluation, curves: Curves, step: int) -> None:
        """List the run in the table of hyperparameters, with its means, and show the table of categories as a text."""
        self.log_hyperparams(dict(settings), metrics=means(evaluation), step=step)
        columns, lines = table(evaluation)
        cells = [columns, ["---"] * len(columns), *([_cell(value) for value in line] for line in lines)]
        self.experiment.add_text("results", "\n".join(f"| {' | '.join(line)} |" for line in cells), step)


def _saved_id(file: Path) -> str:
    """The id in the file of an earlier part of the run, a new one without it."""
    return (file.read_text().strip() if file.is_file() else "") or secrets.token_hex(4)


def _drop_anonymous(logger: WandbLogger) -> None:
    """Remove an argument of `wandb.init` that Lightning always gives, and that W&B warns of, even of None."""
    logger._wandb_init.pop("anonymous", None)


def _cell(value: Any) -> str:
    """A value in a table of Markdown, in which a category named with a bar would be two cells."""
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")


def means(evaluation: Evaluation | None) -> dict[str, float]:
    """The means of an evaluation by their logged names; empty without one."""
    return {} if evaluation is None else {f"mean/{name}": value for name, value in defined(evaluation.mean).items()}
