"""What a training starts from: nothing, its own checkpoint, or another's weights; and which settings must agree."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.white_level import AUTO, white_level_of
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.errors import InputError
from uniad_lightning.results.run_folder import CONFIG
from uniad_lightning.settings import flat
from uniad_lightning.training.build import warn
from uniad_lightning.training.checkpoint import load_checkpoint
from uniad_lightning.training.method import method_of, overridden
from uniad_lightning.training.saved_config import saved_config
from uniad_lightning.training.trusted_targets import refuse_foreign

# What a resumed run may change; everything else decides the result and is compared with the checkpoint.
FREE_TO_CHANGE = (
    "name", "output_dir", "overwrite", "ckpt_path", "calibrate", "yardstick", "validate_every", "callbacks", "logger",
    "backbone.weights", "data.root", "data.num_workers", "data.eval_batch_size", "data.prepare",
    "data.on_error", "data.max_skipped", "trainer.accelerator", "trainer.devices", "data.cache_dir", "data.cache_size",
    "data.source.train", "data.source.test", "trainer.num_nodes", "trainer.strategy", "trainer.default_root_dir",
    "trainer.log_every_n_steps",
)  # fmt: skip

# Of these, what cannot change the result of a run: a job of a sweep may differ in these from the run in its folder.
WITHOUT_INFLUENCE = tuple(
    name for name in FREE_TO_CHANGE
    if not name.startswith(("validate_every", "callbacks", "backbone", "data.root", "data.prepare", "data.source"))
)  # fmt: skip

DEFAULT_MODEL = "uniad_lightning.models.uniad.UniAD"  # of conf/train.yaml; it counts as none chosen

# What a training with init_from takes from the checkpoint, besides its weights and its image size, white level and
# framing.
INHERITED = ("model", "backbone", "loss", "score", "standardize")


class _Difference(NamedTuple):
    name: str  # of a setting
    current: Any
    saved: Any


def load_initial(cfg: DictConfig) -> dict[str, Any] | None:
    """The checkpoint of `cfg.init_from`, whose network and settings replace those of `cfg`; None without one."""
    if cfg.init_from is None:
        if cfg.rehearse is not None:
            raise InputError("rehearse: is for a training that starts from a checkpoint; give init_from=... as well")
        return None
    checkpoint = load_checkpoint(cfg.init_from, key="init_from")
    saved = checkpoint["config"]
    refuse_foreign(saved, f"init_from={cfg.init_from}")
    _refuse_other_method(cfg, saved)
    with open_dict(cfg):
        if method_of(DictConfig(saved)).one_pass:
            neutral = {"max_epochs": 1, "gradient_clip_val": None}
            cfg.trainer.update({key: value for key, value in neutral.items() if f"trainer.{key}" not in overridden()})
        for name in INHERITED:
            if name in saved:
                cfg[name] = saved[name]
        cfg.data.image_size = saved["data"]["image_size"]
        if cfg.data.white_level == AUTO:
            cfg.data.white_level = white_level_of(saved["data"])
        if cfg.data.channels is None:
            cfg.data.channels = saved["data"].get("channels")
        ignore = cfg.data.framing.ignore
        cfg.data.framing = {**saved["data"].get("framing", cfg.data.framing), "ignore": ignore}
        if "backbone" in saved:
            cfg.backbone.weights = "random"  # the checkpoint holds them; nothing is downloaded
    return checkpoint


def _refuse_other_method(cfg: DictConfig, saved: dict[str, Any]) -> None:
    given, kept = cfg.model._target_, saved["model"]["_target_"]
    if given != kept and ("model" in overridden() or given != DEFAULT_MODEL):  # an experiment may choose one, too
        raise InputError(
            f"model: is {given.rpartition('.')[2]}, and init_from={cfg.init_from} is {kept.rpartition('.')[2]}, which "
            "the training keeps; leave model=... out, or the experiment that chooses it"
        )


def warn_of_forgetting(initial: dict[str, Any], data: UnifiedDataModule) -> None:
    """Warn where the training data lacks a category that the checkpoint was trained on."""
    known = map(composed, initial.get("categories", ()))
    left_out = sorted(set(known) - {record.category for record in data.splits.train})
    if left_out:
        warn(
            f"there are no train images of {', '.join(left_out)}, which init_from knows and this training will forget; "
            "add some to the data"
        )


def refuse_untrained(checkpoint: dict[str, Any], path: str) -> None:
    """Raises InputError for an imported checkpoint: it holds weights, but no training to resume."""
    if not checkpoint["loops"]:
        raise InputError(f"ckpt_path={path}: was imported and holds no training to resume; use init_from={path}")


def resume_white_level(config: dict[str, Any], saved: dict[str, Any]) -> None:
    """Set the white level of the training to resume: in `saved` where it has none, in `config` where that is auto."""
    saved["data"]["white_level"] = white_level_of(saved["data"])
    if config["data"]["white_level"] == AUTO:
        config["data"]["white_level"] = saved["data"]["white_level"]


def refuse_other_run(config: dict[str, Any], saved: dict[str, Any], path: str) -> None:
    """Raises InputError that names the first setting in which `config` differs from the `saved` one at `path`."""
    difference = _first_difference(config, saved, _is_free_when_resumed)
    if difference is not None:
        raise InputError(
            f"ckpt_path={path} was trained with {difference.name}={difference.saved}, this run has "
            f"{difference.name}={difference.current}; resume with the same settings"
        )


def refuse_other_settings(config: dict[str, Any], folder: Path) -> None:
    """Raises InputError that names the first setting in which `config` differs from the run in `folder`."""
    saved = saved_config(folder / CONFIG)
    difference = _first_difference(config, saved, _is_without_influence)
    if difference is not None:
        raise InputError(
            f"output_dir={folder} already holds a run with {difference.name}={difference.saved}, this one has "
            f"{difference.name}={difference.current}; choose another output_dir, or overwrite=true"
        )


def _is_free_when_resumed(name: str) -> bool:
    folders_of_mix = r"data\.source\.parts\.[^.]+(\.root)?"
    return _within(name, FREE_TO_CHANGE) or re.fullmatch(folders_of_mix, name) is not None


def _is_without_influence(name: str) -> bool:
    return _within(name, WITHOUT_INFLUENCE)


def _within(name: str, settings: tuple[str, ...]) -> bool:
    return any(name == setting or name.startswith(f"{setting}.") for setting in settings)


def _first_difference(config: dict[str, Any], saved: dict[str, Any], free: Callable[[str], bool]) -> _Difference | None:
    """The first setting that differs between both and is not `free` to change."""
    current_values, saved_values = flat(config), flat(saved)
    for name in sorted(current_values.keys() | saved_values.keys()):
        difference = _Difference(name, current_values.get(name), saved_values.get(name))
        if not free(name) and difference.current != difference.saved:
            return difference
    return None


def plain(cfg: DictConfig) -> dict[str, Any]:
    """`cfg` as plain dicts and lists, interpolations resolved."""
    values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    if not isinstance(values, dict):
        raise TypeError(f"a configuration is a mapping, not {type(values).__name__}")
    return {str(name): value for name, value in values.items()}
