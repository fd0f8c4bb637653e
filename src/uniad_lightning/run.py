"""From a composed configuration to a run: `train(cfg)`, `evaluate(cfg)`. Config names objects, code names none."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.rank_zero import rank_zero_only, rank_zero_warn
from omegaconf import DictConfig, OmegaConf, open_dict

from uniad_lightning.callbacks import CheckpointConfig, SaveMaps
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.errors import InputError
from uniad_lightning.metrics import Evaluation
from uniad_lightning.models.backbone import Backbone
from uniad_lightning.module import FeatureReconstruction
from uniad_lightning.randomness import key
from uniad_lightning.results.run_folder import CONFIG, refuse_occupied, write_evaluation, write_text
from uniad_lightning.results.tables import show_counts, show_evaluation


def train(cfg: DictConfig) -> Evaluation:
    """Train on all categories, evaluate the last weights, and leave the run folder `cfg.output_dir`.

    Raises InputError for anything in `cfg` or the data that cannot be used, before the first step where that is known.
    """
    folder = Path(cfg.output_dir)
    config = _plain(cfg)
    if _is_first_process():
        refuse_occupied(folder, overwrite=cfg.overwrite, resume_from=cfg.ckpt_path)
    if cfg.ckpt_path is not None:
        _refuse_other_run(config, load_checkpoint(cfg.ckpt_path)["config"], cfg.ckpt_path)
    if "best" in cfg.callbacks and not cfg.validate_every:
        raise InputError("callbacks=best_on_test chooses among validations; set validate_every, such as 10 epochs")

    backbone: Backbone = instantiate(cfg.backbone)
    if cfg.backbone.weights == "random":
        rank_zero_warn("THE BACKBONE HAS RANDOM WEIGHTS (backbone.weights=random): expect much worse results")
    module = build_module(cfg, backbone)
    data = build_data(cfg.data, backbone, module)
    callbacks = _callbacks(cfg.callbacks)
    best = callbacks.get("best")
    trainer: L.Trainer = instantiate(
        cfg.trainer,
        callbacks=[*callbacks.values(), CheckpointConfig(config=config)],
        logger=instantiate(cfg.logger) or False,
        check_val_every_n_epoch=cfg.validate_every or 1,
        limit_val_batches=1.0 if cfg.validate_every else 0,
    )
    _prepare(trainer, data)
    if trainer.is_global_zero:
        write_text(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
    trainer.fit(module, datamodule=data, ckpt_path=cfg.ckpt_path, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    chosen = "last"
    if isinstance(best, ModelCheckpoint):
        chosen = Path(best.best_model_path).stem
        module.load_state_dict(load_checkpoint(best.best_model_path)["state_dict"])
        rank_zero_warn("these results are of the epoch that is best on the test split itself: optimistic by design")
    return _evaluate(trainer, module, data, folder, facts={"checkpoint": chosen})


def evaluate(cfg: DictConfig) -> Evaluation:
    """Evaluate `cfg.ckpt_path` on the data it was trained on, or on what `cfg.data` says instead.

    Raises InputError for a checkpoint that cannot be read and for data that does not fit it.
    """
    folder = Path(cfg.output_dir)
    if _is_first_process():
        refuse_occupied(folder, overwrite=cfg.overwrite, resume_from=None)
    checkpoint = load_checkpoint(cfg.ckpt_path)
    saved = OmegaConf.create(checkpoint["config"])
    saved.backbone.weights = "random"  # the checkpoint holds the backbone; nothing is downloaded
    module = build_module(saved, instantiate(saved.backbone))
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(f"{cfg.ckpt_path}: does not fit its own configuration; {_one_line(error)}") from None
    data = build_data(_data_config(cfg.data, saved.data), module.backbone, module)
    callbacks = {name: c for name, c in _callbacks(cfg.callbacks).items() if name != "checkpoint"}
    if cfg.save_maps:
        callbacks["maps"] = SaveMaps(output_dir=cfg.output_dir)
    trainer = instantiate(cfg.trainer, callbacks=list(callbacks.values()), logger=False, enable_checkpointing=False)
    _prepare(trainer, data)
    if trainer.is_global_zero:
        write_text(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
    return _evaluate(trainer, module, data, folder, facts={"checkpoint": str(cfg.ckpt_path)})


def build_module(cfg: DictConfig, backbone: Backbone) -> FeatureReconstruction:
    """The detector that `cfg` describes, its network's weights drawn from `cfg.seed`."""
    torch.manual_seed(key("weights", cfg.seed))
    return FeatureReconstruction(
        backbone=backbone,
        network=instantiate(cfg.model, channels=sum(backbone.channels)),
        loss=instantiate(cfg.loss),
        score=instantiate(cfg.score),
        optimizer=instantiate(cfg.optimizer),
        schedule=instantiate(cfg.schedule),
        seed=cfg.seed,
    )


def build_data(cfg: DictConfig, backbone: Backbone, module: FeatureReconstruction) -> UnifiedDataModule:
    """The data module that `cfg` describes, normalising as `backbone` expects, its image size checked."""
    data: UnifiedDataModule = instantiate(cfg, mean=backbone.mean, std=backbone.std)
    module.score.check(data.image_size)
    return data


def load_checkpoint(path: str) -> dict[str, Any]:
    """A checkpoint of this package: tensors and plain values, on the CPU. Raises InputError for any other file."""
    if not Path(path).is_file():
        raise InputError(f"ckpt_path={path}: no such file; expected a checkpoint such as RUN/checkpoints/last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise InputError(f"ckpt_path={path}: cannot be read as a checkpoint; {_one_line(error)}") from None
    if not isinstance(checkpoint, dict) or not {"config", "state_dict"} <= checkpoint.keys():
        raise InputError(f"ckpt_path={path}: is no checkpoint of uniad-lightning; expected one written by uniad train")
    return checkpoint


def _prepare(trainer: L.Trainer, data: UnifiedDataModule) -> None:
    """Show what the data set holds before anything long starts."""
    if trainer.is_global_zero:
        data.prepare_data()
        data.setup()
        assert data.splits is not None
        show_counts(data.splits)


def _evaluate(
    trainer: L.Trainer,
    module: FeatureReconstruction,
    data: UnifiedDataModule,
    folder: Path,
    *,
    facts: dict[str, Any],
) -> Evaluation:
    """Test `module` and write the results; the first rank prints them."""
    trainer.test(module, datamodule=data, verbose=False)
    evaluation = module.evaluation
    if evaluation is None:
        raise KeyboardInterrupt
    if trainer.is_global_zero:
        write_evaluation(folder, evaluation, facts={**facts, "vanished_masks": module.vanished_masks})
        show_evaluation(evaluation)
        print(f"run folder: {folder}   pictures: {folder / 'heatmaps'}")
    return evaluation


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def _plain(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` as plain dicts and lists, interpolations resolved."""
    plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
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
    if merged.image_size != saved.image_size:
        raise InputError(
            f"data.image_size={merged.image_size}, but the checkpoint was trained at {saved.image_size}; "
            f"evaluate with data.image_size={saved.image_size}"
        )
    return merged


def _refuse_other_run(config: dict[str, Any], saved: dict[str, Any], path: str) -> None:
    """Raises InputError that names the first setting in which `config` departs from what the checkpoint trained."""
    mine, theirs = (
        {
            **_flat(c["model"], "model"),
            **{k: v for k, v in _flat(c["backbone"], "backbone").items() if k != "backbone.weights"},
            **{f"data.{name}": c["data"][name] for name in ("image_size", "batch_size", "categories")},
            **_flat(c["loss"], "loss"),
            "seed": c["seed"],
        }
        for c in (config, saved)
    )
    for name in mine.keys() | theirs.keys():
        if mine.get(name) != theirs.get(name):
            raise InputError(
                f"ckpt_path={path} was trained with {name}={theirs.get(name)}, this run has {name}={mine.get(name)}; "
                "resume with the same settings"
            )


def _flat(node: Any, name: str) -> dict[str, Any]:
    if not isinstance(node, dict):
        return {name: node}
    return {k: v for child, value in node.items() for k, v in _flat(value, f"{name}.{child}").items()}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
