"""What W&B and TensorBoard show of a training; nothing else here knows W&B, and it is imported when it is used."""

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
from uniad_lightning.metrics.anomaly_metrics import Evaluation, Row
from uniad_lightning.tracking.loggers import Board, Curves, defined

STEP = "trainer/global_step"  # what Lightning's WandbLogger plots everything against


class WandbBoard(Board, WandbLogger):
    """A run at W&B, named by its folder. One that is resumed from a checkpoint in its own folder is the same run.

    `save_dir` is the run folder, `ckpt_path` and `overwrite` those of the training; with `upload_checkpoint` the
    checkpoint is kept at W&B. Timeouts in seconds: what W&B needs longer to start is a failure, what it has not
    uploaded by the end stays on the disk for `wandb sync`.
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
        resumed = ckpt_path is not None and not overwrite and folder.resolve() in _parents(ckpt_path)
        kept = self._id_file.read_text().strip() if resumed and self._id_file.is_file() else None
        super().__init__(
            save_dir=str(folder),
            project=project,
            entity=entity,
            name=name or folder.name,
            group=group,
            tags=list(tags),
            job_type=job_type,
            id=kept or secrets.token_hex(4),
            mode="offline" if offline else None,  # the base's `offline` holds for the rest of the process
            settings={"init_timeout": init_timeout, "finish_timeout": finish_timeout},
        )
        self._wandb_init.pop("anonymous", None)  # W&B warns of it, even of None
        self._upload_checkpoint = upload_checkpoint
        self._failed = False

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run; opened, and its id kept, when it is first asked for."""
        opened = self._experiment is not None
        run = super().experiment
        if not opened:
            self._id_file.parent.mkdir(parents=True, exist_ok=True)
            self._id_file.write_text(f"{run.id}\n")
        return run

    def log_pictures(self, pictures: Mapping[str, Image.Image], step: int) -> None:
        """Show pictures under their names."""
        import wandb

        shown = {name: wandb.Image(picture, file_type="jpg") for name, picture in pictures.items()}
        self.experiment.log({**shown, STEP: step})

    def log_end(self, settings: Mapping[str, Any], evaluation: Evaluation, curves: Curves, step: int) -> None:
        """A table with a row for each category, `results`, and the ROC curves as charts, `<name>_chart`."""
        import wandb

        rows = {**evaluation.categories, "mean": evaluation.mean, "pooled": evaluation.pooled}
        table = wandb.Table(["category", *Row._fields], [[name, *row] for name, row in rows.items()])
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
        self.experiment.log({"results": table, **charts, STEP: step})

    def log_checkpoint(self, file: Path, config: Path, aliases: Sequence[str], evaluation: Evaluation | None) -> None:
        """A version of the artifact `model-<run id>`, its means as metadata."""
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
        """End the run, if it has begun; at W&B it has finished then, or failed."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(self._failed))


class TensorBoard(Board, TensorBoardLogger):
    """Event files for TensorBoard in `<save_dir>/tensorboard`.

    Raises InputError where the package `tensorboard` is missing.
    """

    def __init__(self, *, save_dir: str):
        if find_spec("tensorboard") is None:
            raise InputError("logger=tensorboard: needs the package tensorboard; pip install tensorboard")
        super().__init__(save_dir=save_dir, name="tensorboard", default_hp_metric=False)

    def log_pictures(self, pictures: Mapping[str, Image.Image], step: int) -> None:
        """Show pictures under their names."""
        for name, picture in pictures.items():
            self.experiment.add_image(name, np.asarray(picture), step, dataformats="HWC")

    def log_end(self, settings: Mapping[str, Any], evaluation: Evaluation, curves: Curves, step: int) -> None:
        """Have the run in the table of hyperparameters, beside its means."""
        self.log_hyperparams(dict(settings), metrics=means(evaluation), step=step)


def _parents(path: str) -> Sequence[Path]:
    return expand(path).resolve().parents


def means(evaluation: Evaluation | None) -> dict[str, float]:
    """The means of an evaluation under the names they are logged by."""
    return {} if evaluation is None else {f"mean/{name}": value for name, value in defined(evaluation.mean).items()}
