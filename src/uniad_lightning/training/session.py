"""What a training and an evaluation have in common: from the listing of the data to the results in the run folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from uniad_lightning.data.checking import check_files
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.records import Record
from uniad_lightning.data.skipping import SKIP
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.errors import InputError, print_stdout
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.precision import EVALUATION
from uniad_lightning.results.decisions import scored
from uniad_lightning.results.outcomes import report_decisions, show_outcomes
from uniad_lightning.results.run_folder import (
    CONFIG,
    HEATMAPS,
    MISTAKES,
    clear,
    write_evaluation,
    write_skipped,
    write_text,
)
from uniad_lightning.results.tables import show_counts, show_evaluation
from uniad_lightning.tracking.loggers import FaultTolerantLogger
from uniad_lightning.training.launcher import end_ranks, watch_ranks
from uniad_lightning.training.learning import show_learned
from uniad_lightning.training.yardstick import measured


def prepare(trainer: L.Trainer, data: UnifiedDataModule, folder: Path) -> None:
    """List the data and print how many images it has, before anything long starts."""
    watch_ranks(trainer, folder)
    data.trainer = trainer  # as Lightning does later; the number of steps depends on both
    data.prepare_data()  # on every rank: ranks of torchrun or SLURM start together, and writing it twice is harmless
    data.setup()
    if trainer.is_global_zero:
        show_counts(data.splits)


def begin(
    trainer: L.Trainer,
    data: UnifiedDataModule,
    records: Sequence[Record],
    cfg: DictConfig,
    **checkpoint: str | None,
) -> None:
    """Check that the images of `records` can be used, and only then clear the output folder for this run."""
    if not trainer.is_global_zero:
        return
    check_files(records, data.channels)
    clear(Path(cfg.output_dir), **checkpoint)
    write_text(Path(cfg.output_dir) / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
    write_skipped(Path(cfg.output_dir), data.skipped)


@contextmanager
def closing(trainer: L.Trainer) -> Iterator[None]:
    """On leaving, closes the loggers of a run, and after a failure ends the ranks that it launched.

    The ranks would wait in a collective for ever; a W&B run left open would also log the next job of a sweep.
    """
    try:
        yield
    except BaseException:  # an interrupt, too
        end_ranks(trainer)
        raise
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, FaultTolerantLogger):
                logger.finish()


def run_test(
    trainer: L.Trainer,
    module: AnomalyModule,
    data: UnifiedDataModule,
    folder: Path,
    *,
    facts: dict[str, Any],
    trained_in: str | None,
    calibration: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Test `module`; the first rank writes the results and prints them, with decisions where there is a calibration."""
    trainer.test(module, datamodule=data, verbose=False)
    evaluation, metrics = module.evaluation, module.metrics
    if evaluation is None or metrics is None:
        raise RuntimeError("the evaluation ended without a result")
    if trainer.is_global_zero:
        features = "float16" if data.tests_on_cache else "float32"
        precision = {"training": trained_in, "evaluation": EVALUATION, "test_features": features}
        if data.on_error == SKIP:
            facts["skipped_images"] = len(data.skipped)
        facts |= {"vanished_masks": module.vanished_masks, "precision": precision, **measured(trainer)}
        outcomes = report_decisions(folder, scored(data.splits.test, metrics.scores, calibration))
        write_evaluation(folder, evaluation, facts=facts)
        show_evaluation(evaluation)
        show_learned(facts)
        if outcomes:
            show_outcomes(outcomes)
        worst = folder / MISTAKES
        drawn = f"   worst images: {worst}" if worst.is_file() else ""
        print_stdout(f"run folder: {folder}   heatmaps: {folder / HEATMAPS}{drawn}")
    return evaluation


def build_callbacks(cfg: DictConfig) -> dict[str, L.Callback]:
    """The callbacks of a configuration by name, without those that are null.

    Raises InputError for one that is no callback, and for `checkpoint=null`, which every training needs.
    """
    if "checkpoint" in cfg and cfg.checkpoint is None:
        raise InputError("callbacks.checkpoint=null: a training needs its checkpoint; leave it out")
    given = {str(name): callback for name, callback in cfg.items() if callback is not None}
    for name, callback in given.items():
        if not isinstance(callback, DictConfig) or "_target_" not in callback:
            raise InputError(
                f"callbacks.{name}: is {callback!r:.80}, expected a mapping with _target_, or null for none"
            )
    return {name: instantiate(callback) for name, callback in given.items()}
