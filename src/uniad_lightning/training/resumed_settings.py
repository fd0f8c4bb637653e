"""The settings of a training that is resumed by its run folder: the run's own, and what the command line changes."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.run_folder import CONFIG, LAST, METRICS
from uniad_lightning.settings import conf_dir, flat
from uniad_lightning.training.loggers import by_name
from uniad_lightning.training.saved_config import saved_config
from uniad_lightning.training.trusted_targets import refuse_foreign

FREE_GROUPS = ("callbacks", "logger")  # a resumed run may choose another option of them
_OF_THE_RUN = ("output_dir", "ckpt_path", "resume")
_HOLD_PATHS = ("callbacks", "logger", "trainer")  # groups with paths in the run folder


class Unfinished(NamedTuple):
    """A training to go on with: its run folder, absolute, and the checkpoint in it."""

    folder: Path
    checkpoint: Path


def unfinished_run(path: str) -> Unfinished:
    """The training at `path`, a run folder or a checkpoint in it; InputError where there is none to go on with."""
    place = Path(os.path.abspath(expand(path)))
    run = Unfinished(place.parents[1], place) if place.is_file() and len(place.parents) > 1 else None
    run = run or Unfinished(place, place / LAST)
    if run.checkpoint.parent != (run.folder / LAST).parent or not (run.folder / CONFIG).is_file():
        raise InputError(
            f"resume={path}: is no run of uniad train; expected its folder, which holds {CONFIG}, or a checkpoint in it"
        )
    if not run.checkpoint.is_file():
        raise InputError(f"resume={path}: has no {LAST} yet, so there is nothing to go on with; start it again")
    return run


def resumed_settings(defaults: DictConfig, path: str, words: Sequence[str]) -> DictConfig:
    """The configuration of the run at `path`, changed by the overrides `words`, to go on from its checkpoint.

    `defaults` are those of conf/, with the options of `FREE_GROUPS` that `words` choose. What may not change is refused
    by the training (`resume.refuse_other_run`). Raises InputError for a run that is finished or not to be used, and for
    a word that fits none of its settings.
    """
    run = unfinished_run(path)
    saved = saved_config(run.folder / CONFIG)
    refuse_foreign(saved, f"resume={path}")
    if (run.folder / METRICS).is_file() and "overwrite=true" not in words:
        raise InputError(
            f"resume={path}: that training is finished; to train further start from its weights by "
            f"init_from={run.checkpoint} and an output_dir of its own"
        )
    overrides = OverridesParser.create().parse_overrides(list(words))
    chosen = {override.key_or_group for override in overrides} & {*FREE_GROUPS}
    cfg = defaults.copy()
    with open_dict(cfg):
        cfg.update({name: value for name, value in saved.items() if name not in chosen})
        _settle(cfg, run, str(saved.get("output_dir")))
        for override in overrides:
            if override.key_or_group.partition(".")[0] not in chosen:
                _apply(cfg, override, path)
    root = cfg.data.get("root")
    if isinstance(root, str) and cfg.data.get("prepare") is None and not expand(root).exists():
        raise InputError(
            f"resume={path}: data.root={root} is not here; go on in the folder in which the training was started, or "
            "give data.root=..."
        )
    return cfg


def _settle(cfg: DictConfig, run: Unfinished, former: str) -> None:
    """Put the run where it lies now, which may be elsewhere than in its `former` folder, and at its checkpoint."""
    for group in _HOLD_PATHS:
        for name, value in flat(OmegaConf.to_container(cfg[group]), group).items():
            if value == former or (isinstance(value, str) and value.startswith(f"{former}{os.sep}")):
                OmegaConf.update(cfg, name, f"{run.folder}{value.removeprefix(former)}")
    cfg.update({"output_dir": str(run.folder), "ckpt_path": str(run.checkpoint), "overwrite": False, "resume": None})
    for logger in by_name(cfg.logger).values():
        for name in ("ckpt_path", "overwrite"):
            if name in logger:  # W&B and MLflow go on with the same run by these
                logger[name] = f"${{{name}}}"


def _apply(cfg: DictConfig, override: Override, path: str) -> None:
    word, key = override.input_line, override.key_or_group
    if key in _OF_THE_RUN:
        raise InputError(f"{word}: resume={path} goes on in its own folder; leave it out")
    if override.is_sweep_override():
        raise InputError(f"{word}: resume={path} goes on with one training; give one value")
    if (conf_dir() / key).is_dir():
        raise InputError(
            f"{word}: resume={path} has the settings of that run already; leave it out, or change single ones, such as "
            "trainer.accelerator=cpu"
        )
    if override.is_delete() or not (override.is_add() or override.is_force_add()):
        known = flat(OmegaConf.to_container(cfg))
        if OmegaConf.select(cfg, key) is None and key not in known:
            raise InputError(f"{word}: resume={path} has no such setting.{did_you_mean(key, known)}")
    if override.is_delete():
        parent, _, name = key.rpartition(".")
        (OmegaConf.select(cfg, parent) if parent else cfg).pop(name)
    else:
        OmegaConf.update(cfg, key, override.value(), force_add=True)
