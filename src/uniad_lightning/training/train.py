"""`train(cfg)`: from a composed configuration to a trained and evaluated detector in a run folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from uniad_lightning.data.checking import decode_all
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.errors import InputError, message_of, print_stdout
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.precision import check_precision
from uniad_lightning.results.output_folder import holds_output_dir, is_first
from uniad_lightning.results.run_folder import CONFIG, LAST, is_within, refuse_occupied
from uniad_lightning.tracking.monitors import EvaluationMonitor
from uniad_lightning.training.build import build_data, build_module, check_listing, warn
from uniad_lightning.training.callbacks import EndWhenInterrupted
from uniad_lightning.training.checkpoint import (
    AtomicCheckpointIO,
    CheckpointConfig,
    load_checkpoint,
    load_weights,
    unpack_ignored,
)
from uniad_lightning.training.defects_picture import draw_defects
from uniad_lightning.training.learning import announce, learned
from uniad_lightning.training.loggers import build_loggers
from uniad_lightning.training.method import leave_out_unused
from uniad_lightning.training.monitored_metrics import RefuseUndefined, check_monitors, choose_monitor
from uniad_lightning.training.outlier_exposure import settle_outliers
from uniad_lightning.training.resume import (
    load_initial,
    plain,
    refuse_other_run,
    refuse_untrained,
    resume_white_level,
    warn_of_forgetting,
)
from uniad_lightning.training.session import begin, build_callbacks, closing, prepare, run_test
from uniad_lightning.training.train_images import can_refit, check_images
from uniad_lightning.training.trainer_settings import (
    check_end,
    check_trainer,
    check_validations,
    refuse_for_method,
    refuse_shifting,
)
from uniad_lightning.training.yardstick import Yardstick, wants_yardstick


@holds_output_dir
def train(cfg: DictConfig) -> Evaluation:
    """Train on all categories, evaluate the last weights, and write the run folder `cfg.output_dir`.

    `cfg.calibrate` is checked here, and done by `calibration.after_training.train`.

    Raises InputError for what cannot be used in `cfg`, the data or the checkpoint to resume from.
    """
    folder = Path(cfg.output_dir)
    initial = load_initial(cfg)
    leave_out_unused(cfg)
    settle_outliers(cfg)
    config = plain(cfg)
    _check(cfg, config)
    module = build_module(cfg, announce=initial is None)
    if initial is not None:
        load_weights(module, initial, cfg.init_from, key="init_from")
    checkpoint = _checkpoint_to_resume(cfg, config, module)
    data = _build_data(cfg, config, module, initial)
    callbacks = build_callbacks(cfg.callbacks)
    trainer = _build_trainer(cfg, config, callbacks, initial)
    refuse_shifting(callbacks)
    refuse_for_method(trainer, module)
    check_precision(trainer.precision)
    prepare(trainer, data, folder)
    check_images(cfg, data, checkpoint, initial)
    data.check_batch_size(trainer.world_size)
    _choose_monitors(callbacks, data, cfg)
    begin(trainer, data, data.splits.all, cfg, resume_from=cfg.ckpt_path)
    _warn_of_data(trainer, module, data, initial)
    draw_defects(data, folder)
    announce(trainer, data, done=checkpoint["global_step"] if checkpoint else 0)
    with closing(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
        _warn_of_early_end(trainer, data, checkpoint, cfg)
        unchanged = checkpoint is not None and trainer.global_step == checkpoint["global_step"]
        kept = trainer.strategy.broadcast(unchanged and (folder / LAST).is_file())  # the first rank may be writing it
        chosen = _save_last(trainer, module, folder, callbacks, kept=kept)
        facts = {"checkpoint": chosen, **module.facts(), **learned(trainer, module, folder)}
        with _naming_the_checkpoint(folder, data):
            return run_test(trainer, module, data, folder, facts=facts, trained_in=trainer.precision)


def _check(cfg: DictConfig, config: dict[str, Any]) -> None:
    """Raises InputError for settings that a training cannot have, and an output folder or data that it cannot use."""
    if config.get("resume") is not None:
        raise InputError(f"resume={config['resume']}: is read by the command line alone; in Python give ckpt_path")
    check_trainer(config["trainer"])
    check_end(config["trainer"])
    check_validations(cfg.validate_every)
    if is_first():
        _refuse_overwriting_initial(cfg)
        refuse_occupied(Path(cfg.output_dir), overwrite=cfg.overwrite, resume_from=cfg.ckpt_path)
    check_listing(cfg.data)


def _checkpoint_to_resume(cfg: DictConfig, config: dict[str, Any], module: AnomalyModule) -> dict[str, Any] | None:
    """The checkpoint of `cfg.ckpt_path` or None; its weights go into `module`, its white level into `config`."""
    if cfg.ckpt_path is None:
        return None
    checkpoint = load_checkpoint(cfg.ckpt_path)
    refuse_untrained(checkpoint, cfg.ckpt_path)
    resume_white_level(config, checkpoint["config"])
    refuse_other_run(config, checkpoint["config"], cfg.ckpt_path)
    load_weights(module, checkpoint, cfg.ckpt_path)
    return checkpoint


def _build_data(
    cfg: DictConfig, config: dict[str, Any], module: AnomalyModule, initial: dict[str, Any] | None
) -> UnifiedDataModule:
    data = build_data(cfg.data, module)
    data.white_level = config["data"]["white_level"]
    if initial is not None:
        if data.framing.ignore is None and "ignore" in initial:
            data.framing.ignore = unpack_ignored(initial["ignore"])
        data.rehearse(initial.get("categories", ()), cfg.rehearse)
    return data


def _build_trainer(
    cfg: DictConfig, config: dict[str, Any], callbacks: dict[str, L.Callback], initial: dict[str, Any] | None
) -> L.Trainer:
    folder = Path(cfg.output_dir)
    return instantiate(
        cfg.trainer,
        callbacks=[
            *callbacks.values(),
            EndWhenInterrupted(),
            *([Yardstick()] if wants_yardstick(cfg) else []),
            RefuseUndefined(callbacks=callbacks),
            CheckpointConfig(config=config, initial=initial),
            EvaluationMonitor(settings=config, last=folder / LAST, config=folder / CONFIG),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=build_loggers(cfg),
        check_val_every_n_epoch=cfg.validate_every or 1,
        limit_val_batches=1.0 if cfg.validate_every else 0,
    )


def _warn_of_early_end(
    trainer: L.Trainer, data: UnifiedDataModule, checkpoint: dict[str, Any] | None, cfg: DictConfig
) -> None:
    """Warn where the training ended early, and where the boundaries of the resumed one are no longer valid."""
    if data.steps.done < data.steps.total:
        warn(f"ended after {data.steps.done} of {data.steps.total} batches, before the end of its learning rates")
    if checkpoint is None or "calibration" not in checkpoint or cfg.calibrate:
        return
    if trainer.global_step > checkpoint["global_step"]:
        warn(f"the boundaries in {cfg.ckpt_path} belong to the shorter training; set new ones with uniad calibrate")


def _refuse_overwriting_initial(cfg: DictConfig) -> None:
    """Raises InputError where overwrite=true would remove the checkpoint to start from."""
    if cfg.init_from is not None and cfg.overwrite and is_within(Path(cfg.output_dir), cfg.init_from):
        raise InputError(
            f"init_from={cfg.init_from}: lies in output_dir={cfg.output_dir}, whose run overwrite=true removes; choose "
            "another output_dir"
        )


def _warn_of_data(
    trainer: L.Trainer, module: AnomalyModule, data: UnifiedDataModule, initial: dict[str, Any] | None
) -> None:
    """Warn of categories that are forgotten and, but for sweeps and whole classes as defects, of no held-out images."""
    if initial is not None:
        if module.forgets:
            warn_of_forgetting(initial, data)
        return
    alone = not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN
    fitted_again = can_refit(one_pass=data.one_pass, init_from=None, train=data.splits.train)
    none_held_out = not data.splits.validation and not fitted_again and data.normal_classes is None
    if trainer.is_global_zero and alone and none_held_out:
        warn(
            "no good images are held out, so uniad calibrate will need others (good=FOLDER); data.held_out=0.1 holds "
            "some out"
        )


@contextmanager
def _naming_the_checkpoint(folder: Path, data: UnifiedDataModule) -> Iterator[None]:
    """Adds the command to continue with to the error for an image that cannot be read after the training."""
    try:
        yield
    except InputError as error:
        message = message_of(error)
        try:
            decode_all(data.splits.test, data.channels)
        except InputError as error_of_all:
            message = str(error_of_all)
        raise InputError(
            f"{message}; the training is done and saved, continue with uniad evaluate ckpt_path={folder / LAST}"
        ) from error


def _save_last(
    trainer: L.Trainer, module: AnomalyModule, folder: Path, callbacks: dict[str, L.Callback], *, kept: bool
) -> str:
    """Save the last weights, and load into `module` those to report; returns the name of their checkpoint.

    Where no step was trained, the file is `kept`, since it may hold boundaries.
    """
    if not kept:
        trainer.save_checkpoint(folder / LAST)
    best = callbacks.get("best")
    if not isinstance(best, ModelCheckpoint):
        return LAST.stem
    load_weights(module, load_checkpoint(best.best_model_path), best.best_model_path)
    warn("these results are of the epoch that is best on the test split itself: optimistic by design")
    return Path(best.best_model_path).stem


def _choose_monitors(callbacks: dict[str, L.Callback], data: UnifiedDataModule, cfg: DictConfig) -> None:
    """Choose the metric of `callbacks=best_on_test`. Raises InputError where a callback monitors an undefined one."""
    epochs = data.steps.total // data.steps.per_epoch
    validations = epochs // cfg.validate_every if cfg.validate_every else 0
    best = callbacks.get("best")
    if isinstance(best, ModelCheckpoint):
        if data.one_pass:
            raise InputError("callbacks=best_on_test: one pass has no epochs to choose from; leave it out")
        if not validations:
            raise InputError(
                f"callbacks=best_on_test chooses among validations, and validate_every={cfg.validate_every} of "
                f"{epochs} epochs makes none; set validate_every, such as 10"
            )
        if best.monitor is None:
            best.monitor, reason = choose_monitor(data.splits, by_class=data.normal_classes is not None)
            if data.running_trainer.is_global_zero:
                print_stdout(f"callbacks=best_on_test: the best epoch is that of the highest {best.monitor} ({reason})")
    check_monitors(callbacks, data.splits, validations=validations)
