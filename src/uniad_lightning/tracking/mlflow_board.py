"""The logger of MLflow, which is imported when it is used."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from uniad_lightning.errors import InputError
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.files.user_path import expand
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.results.run_folder import RESULTS, results_text, write_text
from uniad_lightning.tracking.loggers import Board, Curves, continues

DEFAULT_STORE = "sqlite:///mlflow.db"  # what `mlflow ui` opens in the same folder
_ID_FILE = Path("mlflow") / "run_id"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # MLflow reads these two when it is imported
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # else it tells of each table that it makes
logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)  # it warns of a new experiment


class MlflowBoard(Board, Logger):
    """An MLflow run, named by its folder. A training resumed from a checkpoint in its own folder continues its run.

    `save_dir` is the run folder, `ckpt_path` and `overwrite` those of the training; with `upload_checkpoint` the
    checkpoints are kept at MLflow. Nothing is opened before the first access, and on the first rank alone, so that
    a store that cannot be opened is no end of the training.

    Raises InputError where no MLflow is installed.
    """

    def __init__(
        self,
        *,
        save_dir: str,
        tracking_uri: str | None,
        experiment: str,
        name: str | None,
        group: str | None,
        tags: Mapping[str, Any],
        ckpt_path: str | None,
        overwrite: bool,
        upload_checkpoint: bool,
    ):
        if find_spec("mlflow") is None:
            raise InputError("logger=mlflow: needs the package mlflow-skinny; pip install uniad-lightning[mlflow]")
        super().__init__()
        self._folder = expand(save_dir)
        self._experiment = experiment
        self._open = partial(
            MLFlowLogger,
            experiment_name=experiment,
            run_name=name or self._folder.name,
            tracking_uri=tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE,
            tags={key: str(value) for key, value in {**tags, "group": group}.items() if value is not None},
        )
        self._resumed = continues(self._folder, ckpt_path, overwrite=overwrite)
        self._upload_checkpoint = upload_checkpoint
        self._logger: MLFlowLogger | None = None
        self._status = "success"

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """MLflow's client; its run is opened, and the run's id saved, at the first access."""
        return self._opened().experiment

    def _opened(self) -> MLFlowLogger:
        if self._logger is None:
            file = self._folder / _ID_FILE
            former = file.read_text().strip() if self._resumed and file.is_file() else None
            logger = self._open(run_id=former)
            self._run = str(logger.run_id)
            write_text(file, f"{self._run}\n")
            logger.experiment.update_run(self._run, status="RUNNING")  # the former part of it may have ended
            self._logger = logger
        return self._logger

    @property
    def name(self) -> str:
        """The experiment's."""
        return self._experiment

    @property
    def version(self) -> str | None:
        """The run's id, once it is opened."""
        return None if self._logger is None else self._run

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return str(self._folder)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        self._opened().log_metrics({allowed(name): value for name, value in metrics.items()}, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Log settings, of a run that goes on only new ones, since MLflow lets none change."""
        logger = self._opened()
        known = logger.experiment.get_run(self._run).data.params
        logger.log_hyperparams({name: value for name, value in params.items() if name not in known})

    def log_images(self, images: Mapping[str, Image.Image], step: int) -> None:
        """Show images under their names."""
        for name, image in images.items():
            self.experiment.log_image(self._run, image, key=allowed(name), step=step)

    def log_end(self, settings: Mapping[str, Any], evaluation: Evaluation, curves: Curves, step: int) -> None:
        """Keep the table with a row for each category, `results.csv`, and the ROC curves, as `roc/image.csv`."""
        client = self.experiment
        client.log_text(self._run, results_text(evaluation), RESULTS)
        for name, by_category in curves.items():
            points = [
                [category, x, y]
                for category, curve in by_category.items()
                for x, y in zip(curve.false_positives.tolist(), curve.true_positives.tolist(), strict=True)
            ]
            table = [["category", "false_positive_rate", "true_positive_rate"], *points]
            client.log_text(self._run, csv_text(table), f"{name}.csv")

    def log_checkpoint(self, file: Path, config: Path, aliases: Sequence[str], evaluation: Evaluation | None) -> None:
        """Keep a checkpoint below `checkpoints`, and the configuration of its training."""
        if self._upload_checkpoint:
            self.experiment.log_artifact(self._run, str(file), "checkpoints")
            self.experiment.log_artifact(self._run, str(config))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Called by Lightning at the end of a fit and of a test, with "success" or "failed"."""
        self._status = status

    def finish(self) -> None:
        """End the run, if it has started, as finished or failed."""
        if self._logger is not None:
            self._logger.finalize(self._status)


def allowed(name: str) -> str:
    """`name` with only the signs that MLflow takes; where it has others, with a hash, so that no two become one."""
    kept = re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII)
    return name if kept == name else f"{kept}-{blake2b(name.encode(), digest_size=3).hexdigest()}"
