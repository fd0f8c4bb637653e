"""From a composed configuration to a run: `train(cfg)`, `evaluate(cfg)` and so on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf, open_dict

from uniad_lightning.data.checking import check_files, decode_all
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.records import Record
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import InputError, say, told_by
from uniad_lightning.metrics.anomaly_metrics import Evaluation
from uniad_lightning.precision import EVALUATION, check_precision
from uniad_lightning.results.output_folder import holds_output_dir, is_first
from uniad_lightning.results.run_folder import (
    CONFIG,
    LAST,
    clear,
    is_within,
    refuse_occupied,
    write_evaluation,
    write_text,
)
from uniad_lightning.results.tables import show_counts, show_evaluation
from uniad_lightning.tracking.loggers import Forgiving
from uniad_lightning.tracking.monitors import EvaluationMonitor
from uniad_lightning.training.build import build_data, build_module, build_saved, build_saved_data, warn
from uniad_lightning.training.callbacks import EndWhenInterrupted, SaveMaps
from uniad_lightning.training.checkpoint import (
    AtomicCheckpointIO,
    CheckpointConfig,
    load_checkpoint,
    load_weights,
    unpack_ignored,
)
from uniad_lightning.training.launcher import end_ranks, watch_ranks
from uniad_lightning.training.monitored_metrics import RefuseUndefined, check_monitors, choose_monitor
from uniad_lightning.training.resume import (
    go_on_with_white_level,
    plain,
    refuse_other_run,
    refuse_untrained,
    start_from,
    warn_of_forgetting,
)
from uniad_lightning.training.train_images import refuse_other_images
from uniad_lightning.training.trainer_settings import check_end, check_trainer, check_validations, refuse_shifting


@holds_output_dir
def train(cfg: DictConfig) -> Evaluation:
    """Train on all categories, evaluate the last weights, and leave the run folder `cfg.output_dir`.

    Raises InputError for what cannot be used in `cfg`, the data or the checkpoint to resume from.
    """
    folder = Path(cfg.output_dir)
    started = start_from(cfg)
    config = plain(cfg)
    check_trainer(config["trainer"])
    check_end(config["trainer"])
    check_validations(cfg.validate_every)
    if is_first():
        _refuse_losing(cfg)
        refuse_occupied(folder, overwrite=cfg.overwrite, resume_from=cfg.ckpt_path)
    module = build_module(cfg, announce=started is None)
    if started is not None:
        load_weights(module, started, cfg.init_from, key="init_from")
    checkpoint = None if cfg.ckpt_path is None else load_checkpoint(cfg.ckpt_path)
    if checkpoint is not None:
        refuse_untrained(checkpoint, cfg.ckpt_path)
        go_on_with_white_level(config, checkpoint["config"])
        refuse_other_run(config, checkpoint["config"], cfg.ckpt_path)
        load_weights(module, checkpoint, cfg.ckpt_path)
    data = build_data(cfg.data, module)
    data.white_level = config["data"]["white_level"]
    if started is not None:
        if data.framing.ignore is None and "ignore" in started:
            data.framing.ignore = unpack_ignored(started["ignore"])
        data.rehearse(started.get("categories", ()), cfg.rehearse)
    callbacks = _callbacks(cfg.callbacks)
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        callbacks=[
            *callbacks.values(),
            EndWhenInterrupted(),
            RefuseUndefined(callbacks=callbacks),
            CheckpointConfig(config=config, started=started),
            EvaluationMonitor(settings=config, last=folder / LAST, config=folder / CONFIG),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=_logger(cfg),
        check_val_every_n_epoch=cfg.validate_every or 1,
        limit_val_batches=1.0 if cfg.validate_every else 0,
    )
    refuse_shifting(callbacks)
    check_precision(trainer.precision)
    _prepare(trainer, data, folder)
    if checkpoint is not None:
        refuse_other_images(checkpoint, started, data.splits.train, data.root, cfg.ckpt_path)
    data.check_batch_size(trainer.world_size)
    _settle_monitors(callbacks, data, cfg)
    _begin(trainer, [*data.splits.train, *data.splits.validation, *data.splits.test], cfg, resume_from=cfg.ckpt_path)
    if started is None:
        _warn_of_nothing_held_out(trainer, data)
    else:
        warn_of_forgetting(started, data)
    with _ended(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
        if trainer.global_step < data.total_steps:
            warn(f"ended after {trainer.global_step} of {data.total_steps} steps, before the end of its learning rates")
        if checkpoint is not None and "calibration" in checkpoint and trainer.global_step > checkpoint["global_step"]:
            warn(f"the boundaries in {cfg.ckpt_path} are of the shorter training; set new ones with uniad calibrate")
        unchanged = checkpoint is not None and trainer.global_step == checkpoint["global_step"]
        chosen = _leave_checkpoint(trainer, module, folder, callbacks, kept=unchanged and (folder / LAST).is_file())
        with _kept(folder, data):
            return _evaluate(trainer, module, data, folder, facts={"checkpoint": chosen}, trained_in=trainer.precision)


@holds_output_dir
def evaluate(cfg: DictConfig) -> Evaluation:
    """Evaluate `cfg.ckpt_path` on the data it was trained on, or on what `cfg.data` says instead.

    Raises InputError for a checkpoint that cannot be read and for data that does not fit it.
    """
    folder = Path(cfg.output_dir)
    check_trainer(cfg.trainer)
    module, checkpoint = build_saved(cfg.ckpt_path)
    if is_first():
        refuse_occupied(folder, overwrite=cfg.overwrite)
    data = build_saved_data(checkpoint, module, cfg.data, evaluates=True)
    callbacks = {name: c for name, c in _callbacks(cfg.callbacks).items() if not isinstance(c, ModelCheckpoint)}
    if cfg.save_maps:
        callbacks["maps"] = SaveMaps(output_dir=cfg.output_dir)
    callbacks["interrupts"] = EndWhenInterrupted()
    trainer = instantiate(cfg.trainer, callbacks=list(callbacks.values()), logger=False, enable_checkpointing=False)
    check_precision(trainer.precision)
    _prepare(trainer, data, folder)
    _begin(trainer, data.splits.test, cfg, reads=cfg.ckpt_path)
    trained_in = checkpoint["config"].get("trainer", {}).get("precision")  # none of an imported one
    with _ended(trainer):
        facts = {"checkpoint": str(cfg.ckpt_path)}
        return _evaluate(trainer, module, data, folder, facts=facts, trained_in=trained_in)


def cache(cfg: DictConfig) -> None:
    """Compute the features of all images of `cfg.data`, on one device, and keep them on the disk.

    Raises InputError for what cannot be used in `cfg` or the data, and where the features change.
    """
    module = build_module(cfg)
    with open_dict(cfg):
        cfg.data.cache = "disk"
    data = build_data(cfg.data, module)
    trainer = instantiate(
        cfg.trainer, devices=1, num_nodes=1, strategy="auto", logger=False, enable_checkpointing=False
    )
    data.prepare_data()
    data.setup()
    data.trainer = trainer
    for stage in ("fit", "test"):
        module.fill_cache(data, stage)
    kept = {name: len(split.slots) for name, split in data.cache.splits.items()}
    say(f"features of {kept['train']} train and {kept['test']} test images are kept in {data.cache.folder}")


def _refuse_losing(cfg: DictConfig) -> None:
    """Raises InputError where the checkpoint to start from would be removed."""
    if cfg.init_from is not None and cfg.overwrite and is_within(Path(cfg.output_dir), cfg.init_from):
        raise InputError(
            f"init_from={cfg.init_from}: lies in output_dir={cfg.output_dir}, whose run overwrite=true removes; choose "
            "another output_dir"
        )


def _prepare(trainer: L.Trainer, data: UnifiedDataModule, folder: Path) -> None:
    """List the data, and show what it holds before anything long starts."""
    watch_ranks(trainer, folder)
    data.trainer = trainer  # as Lightning does later; the number of steps follows from both
    data.prepare_data()  # on every rank: ranks of torchrun or SLURM start together, and writing it twice is harmless
    data.setup()
    if trainer.is_global_zero:
        show_counts(data.splits)


def _begin(trainer: L.Trainer, records: Sequence[Record], cfg: DictConfig, **checkpoint: str | None) -> None:
    """Refuse images that cannot be used; then, where nothing is left to refuse, clear the folder for this run."""
    if not trainer.is_global_zero:
        return
    check_files(records)
    clear(Path(cfg.output_dir), **checkpoint)
    write_text(Path(cfg.output_dir) / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))


def _warn_of_nothing_held_out(trainer: L.Trainer, data: UnifiedDataModule) -> None:
    """One line where `uniad calibrate` will have no images; not in a sweep, nor where whole classes are defects."""
    alone = not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN
    if trainer.is_global_zero and alone and not data.splits.validation and data.normal_classes is None:
        warn(
            "no good images are held out, so uniad calibrate will need others (good=FOLDER); data.held_out=0.1 holds "
            "some out"
        )


@contextmanager
def _ended(trainer: L.Trainer) -> Iterator[None]:
    """Ends what a run leaves open: its loggers always, and the ranks it launched when it fails.

    The ranks would wait in a collective for ever; a W&B run left open would take in the next job of a sweep.
    """
    try:
        yield
    except BaseException:
        end_ranks(trainer)
        raise
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, Forgiving):
                logger.finish()


@contextmanager
def _kept(folder: Path, data: UnifiedDataModule) -> Iterator[None]:
    """Says, of an image that cannot be read once the training is done, that it is kept and which command goes on."""
    try:
        yield
    except InputError as error:
        said = told_by(error)
        try:
            decode_all(data.splits.test)
        except InputError as all_of_them:
            said = str(all_of_them)
        raise InputError(
            f"{said}; the training is done and kept: uniad evaluate ckpt_path={folder / LAST} goes on"
        ) from error


def _leave_checkpoint(
    trainer: L.Trainer, module: FeatureReconstruction, folder: Path, callbacks: dict[str, L.Callback], *, kept: bool
) -> str:
    """Put the weights to report into `module`, the last ones on disk too; returns the checkpoint's name.

    Where no step was trained, the file is `kept`, for it may hold boundaries besides.
    """
    saved = callbacks.get("checkpoint")
    if not kept and (not isinstance(saved, ModelCheckpoint) or saved._last_global_step_saved != trainer.global_step):
        trainer.save_checkpoint(folder / LAST)
    best = callbacks.get("best")
    if not isinstance(best, ModelCheckpoint):
        return LAST.stem
    load_weights(module, load_checkpoint(best.best_model_path), best.best_model_path)
    warn("these results are of the epoch that is best on the test split itself: optimistic by design")
    return Path(best.best_model_path).stem


def _evaluate(
    trainer: L.Trainer,
    module: FeatureReconstruction,
    data: UnifiedDataModule,
    folder: Path,
    *,
    facts: dict[str, Any],
    trained_in: str | None,
) -> Evaluation:
    """Test `module` and write the results; the first rank prints them."""
    trainer.test(module, datamodule=data, verbose=False)
    evaluation = module.evaluation
    if evaluation is None:
        raise RuntimeError("the evaluation ended without a result")
    if trainer.is_global_zero:
        features = "float16" if data.tests_on_cache else "float32"
        precision = {"training": trained_in, "evaluation": EVALUATION, "test_features": features}
        facts |= {"vanished_masks": module.vanished_masks, "precision": precision}
        write_evaluation(folder, evaluation, facts=facts)
        show_evaluation(evaluation)
        say(f"run folder: {folder}   pictures: {folder / 'heatmaps'}")
    return evaluation


def _settle_monitors(callbacks: dict[str, L.Callback], data: UnifiedDataModule, cfg: DictConfig) -> None:
    """Have the best epoch chosen by a metric that the data defines; refuse what watches another, or none."""
    epochs = data.total_steps // data.steps_per_epoch
    validations = epochs // cfg.validate_every if cfg.validate_every else 0
    best = callbacks.get("best")
    if isinstance(best, ModelCheckpoint):
        if not validations:
            raise InputError(
                f"callbacks=best_on_test chooses among validations, and validate_every={cfg.validate_every} of "
                f"{epochs} epochs makes none; set validate_every, such as 10"
            )
        if best.monitor is None:
            best.monitor, reason = choose_monitor(data.splits, by_class=data.normal_classes is not None)
            if data.running_trainer.is_global_zero:
                say(f"callbacks=best_on_test: the best epoch is that of the highest {best.monitor} ({reason})")
    check_monitors(callbacks, data.splits, validations=validations)


def _logger(cfg: DictConfig) -> list[Forgiving]:
    """The logger of `cfg`, if it has one; runs of a sweep are grouped by its folder, others by their name."""
    if cfg.logger.get("group", "") is None:
        swept = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
        cfg.logger.group = Path(cfg.output_dir).parent.name if swept else cfg.name
    logger = instantiate(cfg.logger, _convert_="all")
    return [Forgiving(logger)] if logger else []


def _callbacks(cfg: DictConfig) -> dict[str, L.Callback]:
    return {str(name): instantiate(callback) for name, callback in cfg.items()}
