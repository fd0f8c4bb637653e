"""From a composed configuration to a run: `train(cfg)`, `evaluate(cfg)`. Config names objects, code names none."""

import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from uniad_lightning.callbacks import SaveMaps
from uniad_lightning.checkpoint import AtomicCheckpointIO, CheckpointConfig, load_checkpoint, load_weights
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.errors import InputError
from uniad_lightning.metrics import Evaluation
from uniad_lightning.models.backbone import Backbone
from uniad_lightning.module import FeatureReconstruction
from uniad_lightning.randomness import key
from uniad_lightning.results.run_folder import CONFIG, LAST, clear, refuse_occupied, write_evaluation, write_text
from uniad_lightning.results.tables import show_counts, show_evaluation

# What a resumed run may change; everything else decides the result and is compared with the checkpoint.
FREE_TO_CHANGE = (
    "name", "output_dir", "overwrite", "ckpt_path", "validate_every", "callbacks", "logger", "backbone.weights",
    "data.root", "data.num_workers", "data.eval_batch_size", "data.prepare", "trainer.accelerator", "trainer.devices",
    "data.cache_dir", "data.source.train", "data.source.test",
    "trainer.num_nodes", "trainer.strategy", "trainer.default_root_dir", "trainer.log_every_n_steps",
)  # fmt: skip


def train(cfg: DictConfig) -> Evaluation:
    """Train on all categories, evaluate the last weights, and leave the run folder `cfg.output_dir`.

    Raises InputError for what cannot be used in `cfg`, the data or the checkpoint to resume from.
    """
    folder = Path(cfg.output_dir)
    config = _plain(cfg)
    _claim(folder, cfg.overwrite, cfg.ckpt_path)
    _check_choice_of_best(cfg)
    module = build_module(cfg)
    if cfg.ckpt_path is not None:
        checkpoint = load_checkpoint(cfg.ckpt_path)
        _refuse_other_run(config, checkpoint["config"], cfg.ckpt_path)
        load_weights(module, checkpoint, cfg.ckpt_path)
    data = build_data(cfg.data, module)
    callbacks = _callbacks(cfg.callbacks)
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        callbacks=[*callbacks.values(), CheckpointConfig(config=config)],
        plugins=[AtomicCheckpointIO()],
        logger=instantiate(cfg.logger) or False,
        check_val_every_n_epoch=cfg.validate_every or 1,
        limit_val_batches=1.0 if cfg.validate_every else 0,
    )
    if trainer.accumulate_grad_batches != 1:
        raise InputError(
            "trainer.accumulate_grad_batches: order and randomness count one step per batch; leave it at 1"
        )
    _prepare(trainer, data, folder, cfg)
    data.check_batch_size(trainer.world_size)
    with _ended(trainer):
        trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
        chosen = _leave_checkpoint(trainer, module, folder, callbacks)
        return _evaluate(trainer, module, data, folder, facts={"checkpoint": chosen})


def evaluate(cfg: DictConfig) -> Evaluation:
    """Evaluate `cfg.ckpt_path` on the data it was trained on, or on what `cfg.data` says instead.

    Raises InputError for a checkpoint that cannot be read and for data that does not fit it.
    """
    folder = Path(cfg.output_dir)
    checkpoint = load_checkpoint(cfg.ckpt_path)
    _claim(folder, cfg.overwrite, None)
    saved = OmegaConf.create(checkpoint["config"])
    saved.backbone.weights = "random"  # the checkpoint holds the backbone; nothing is downloaded
    module = build_module(saved, announce=False)
    load_weights(module, checkpoint, cfg.ckpt_path)
    data = build_data(_data_config(cfg.data, saved.data), module)
    callbacks = {name: c for name, c in _callbacks(cfg.callbacks).items() if not isinstance(c, ModelCheckpoint)}
    if cfg.save_maps:
        callbacks["maps"] = SaveMaps(output_dir=cfg.output_dir)
    trainer = instantiate(cfg.trainer, callbacks=list(callbacks.values()), logger=False, enable_checkpointing=False)
    _prepare(trainer, data, folder, cfg)
    with _ended(trainer):
        return _evaluate(trainer, module, data, folder, facts={"checkpoint": str(cfg.ckpt_path)})


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
    print(f"features of {kept['train']} train and {kept['test']} test images are kept in {data.cache.folder}")


def build_module(cfg: DictConfig, *, announce: bool = True) -> FeatureReconstruction:
    """The detector that `cfg` describes; weights that are drawn follow from `cfg.seed`."""
    if announce and cfg.backbone.weights == "random":
        _warn("THE BACKBONE HAS RANDOM WEIGHTS (backbone.weights=random): expect much worse results")
    torch.manual_seed(key("backbone", cfg.seed))
    backbone: Backbone = instantiate(cfg.backbone)
    torch.manual_seed(key("weights", cfg.seed))
    return FeatureReconstruction(
        backbone=backbone,
        network=instantiate(cfg.model, channels=sum(backbone.channels)),
        loss=instantiate(cfg.loss),
        score=instantiate(cfg.score),
        optimizer=instantiate(cfg.optimizer),
        schedule=instantiate(cfg.schedule),
        seed=cfg.seed,
        standardize=cfg.standardize,
    )


def build_data(cfg: DictConfig, module: FeatureReconstruction) -> UnifiedDataModule:
    """The data module that `cfg` describes, normalising as the module's backbone expects, its image size checked."""
    data: UnifiedDataModule = instantiate(cfg, mean=module.backbone.mean, std=module.backbone.std)
    module.backbone.check(data.image_size)
    module.score.check(data.image_size)
    return data


@rank_zero_only
def _warn(text: str) -> None:
    print(f"uniad: warning: {text}", file=sys.stderr)


def _claim(folder: Path, overwrite: bool, resume_from: str | None) -> None:
    """Refuse a folder that holds another run, or clear it where that was asked for; the first process alone."""
    if getattr(rank_zero_only, "rank", 0) == 0:
        refuse_occupied(folder, overwrite=overwrite, resume_from=resume_from)
        clear(folder)


def _prepare(trainer: L.Trainer, data: UnifiedDataModule, folder: Path, cfg: DictConfig) -> None:
    """List the data, show what it holds before anything long starts, and keep the configuration."""
    data.prepare_data()  # on every rank: ranks of torchrun or SLURM start together, and writing it twice is harmless
    data.setup()
    if trainer.is_global_zero:
        show_counts(data.splits)
        write_text(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))


@contextmanager
def _ended(trainer: L.Trainer) -> Iterator[None]:
    """Ends what a run leaves open: its loggers always, and the ranks it launched when it fails.

    The ranks would wait in a collective for ever; a W&B run left open would take in the next job of a sweep.
    """
    try:
        yield
    except BaseException:
        launcher = trainer.strategy.launcher
        if isinstance(launcher, _SubprocessScriptLauncher):
            launcher.kill(signal.SIGKILL)
        raise
    finally:
        for logger in trainer.loggers:
            finish = getattr(getattr(logger, "experiment", None), "finish", None)
            if callable(finish):
                finish()


def _leave_checkpoint(
    trainer: L.Trainer, module: FeatureReconstruction, folder: Path, callbacks: dict[str, L.Callback]
) -> str:
    """Put the weights to report into `module`, the last ones on disk too; returns the checkpoint's name."""
    saved = callbacks.get("checkpoint")
    if not isinstance(saved, ModelCheckpoint) or saved._last_global_step_saved != trainer.global_step:
        trainer.save_checkpoint(folder / LAST)
    best = callbacks.get("best")
    if not isinstance(best, ModelCheckpoint):
        return LAST.stem
    load_weights(module, load_checkpoint(best.best_model_path), best.best_model_path)
    _warn("these results are of the epoch that is best on the test split itself: optimistic by design")
    return Path(best.best_model_path).stem


def _evaluate(
    trainer: L.Trainer, module: FeatureReconstruction, data: UnifiedDataModule, folder: Path, *, facts: dict[str, Any]
) -> Evaluation:
    """Test `module` and write the results; the first rank prints them."""
    trainer.test(module, datamodule=data, verbose=False)
    evaluation = module.evaluation
    if evaluation is None:
        raise RuntimeError("the evaluation ended without a result")
    if trainer.is_global_zero:
        write_evaluation(folder, evaluation, facts={**facts, "vanished_masks": module.vanished_masks})
        show_evaluation(evaluation)
        print(f"run folder: {folder}   pictures: {folder / 'heatmaps'}")
    return evaluation


def _check_choice_of_best(cfg: DictConfig) -> None:
    if "best" not in cfg.callbacks:
        return
    if not cfg.validate_every or cfg.validate_every > cfg.trainer.max_epochs:
        raise InputError(
            f"callbacks=best_on_test chooses among validations, and validate_every={cfg.validate_every} of "
            f"{cfg.trainer.max_epochs} epochs makes none; set validate_every, such as 10"
        )


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` as plain dicts and lists, interpolations resolved."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(plain, dict):
        raise TypeError(f"a configuration is a mapping, not {type(plain).__name__}")
    return {str(name): value for name, value in plain.items()}


def _callbacks(cfg: DictConfig) -> dict[str, L.Callback]:
    return {str(name): instantiate(callback) for name, callback in cfg.items()}


def _data_config(given: DictConfig, saved: DictConfig) -> DictConfig:
    """The checkpoint's data configuration with what is `given` in its place; another image size is refused."""
    if "_target_" in given:
        merged = given
    else:
        merged = saved.copy()
        with open_dict(merged):
            merged.update({name: value for name, value in given.items() if value is not None})
            if given.root is not None:
                merged.prepare = None  # what is there is the user's, not ours to write
    if merged.image_size != saved.image_size:
        raise InputError(
            f"data.image_size={merged.image_size}, but the checkpoint was trained at {saved.image_size}; "
            f"evaluate with data.image_size={saved.image_size}"
        )
    return merged


def _refuse_other_run(config: dict[str, Any], saved: dict[str, Any], path: str) -> None:
    """Raises InputError that names the first setting in which `config` departs from what the checkpoint trained."""
    mine, theirs = _flat(config), _flat(saved)
    for name in sorted(mine.keys() | theirs.keys()):
        free = any(name == one or name.startswith(f"{one}.") for one in FREE_TO_CHANGE)
        free = free or re.fullmatch(r"data\.source\.parts\.[^.]+(\.root)?", name) is not None  # folders of data=mix
        if not free and mine.get(name) != theirs.get(name):
            raise InputError(
                f"ckpt_path={path} was trained with {name}={theirs.get(name)}, this run has {name}={mine.get(name)}; "
                "resume with the same settings"
            )


def _flat(node: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {name: node}
    return {k: v for child, value in node.items() for k, v in _flat(value, f"{name}.{child}".lstrip(".")).items()}
