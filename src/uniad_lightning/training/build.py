"""From a configuration to the detector and the data that it describes."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig, OmegaConf, open_dict

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.channels import check_channels
from uniad_lightning.data.images.white_level import AUTO, as_number, check_white_level, white_level_of
from uniad_lightning.data.layouts.patterns import on_disk
from uniad_lightning.data.listing import list_records
from uniad_lightning.data.records import Splits
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import InputError, one_line, print_stderr
from uniad_lightning.files.user_path import expand
from uniad_lightning.models.backbone.timm_model import has_weights
from uniad_lightning.randomness import key
from uniad_lightning.training.checkpoint import load_checkpoint, load_weights, unpack_ignored
from uniad_lightning.training.method import GROUPS, SETTINGS, method_of, parts_of
from uniad_lightning.training.trusted_targets import refuse_foreign
from uniad_lightning.types import Size, pair


def build_module(cfg: DictConfig, *, announce: bool = True) -> AnomalyModule:
    """The detector that `cfg` describes; random weights follow from `cfg.seed`.

    `cfg.model` is a detector, or a network for `FeatureReconstruction`.
    """
    method = method_of(cfg)
    wanted = parts_of(method)
    if announce and "backbone" in wanted and cfg.backbone.weights == "random" and has_weights(cfg.backbone.name):
        warn("THE BACKBONE HAS RANDOM WEIGHTS (backbone.weights=random): expect much worse results")
    parts: dict[str, Any] = {name: cfg[name] for name in SETTINGS if name in wanted}
    if "backbone" in wanted:
        torch.manual_seed(key("backbone", cfg.seed))
        parts["backbone"] = instantiate(cfg.backbone)
    torch.manual_seed(key("weights", cfg.seed))
    if method is FeatureReconstruction:
        parts["network"] = instantiate(cfg.model, channels=sum(parts["backbone"].channels))
    groups = [name for name in GROUPS if name in wanted and name != "backbone"]
    # Plain lists: older optimizers keep what they are given, which then is in the checkpoint.
    parts |= {name: instantiate(cfg[name], _convert_="all") for name in groups}
    if method is FeatureReconstruction:
        return FeatureReconstruction(**parts)
    try:
        return instantiate(cfg.model, _partial_=True)(**parts)
    except (TypeError, ValueError) as error:
        raise InputError(f"model: {method.__name__} cannot be built from its keys; {one_line(error)}") from error


def check_listing(cfg: DictConfig) -> None:
    """Raises InputError where the data of `cfg` cannot be listed: at once, before weights are asked for.

    Data that a training first writes itself are not checked.
    """
    if "source" in cfg and cfg.get("prepare") is None:
        listed_records(cfg)


def listed_records(cfg: DictConfig) -> Splits:
    """All images of the data of `cfg` with their labels and masks; InputError where they cannot be listed."""
    return list_records(instantiate(cfg.source), on_disk(expand(cfg.root)), cfg.categories)


def build_data(cfg: DictConfig, module: AnomalyModule) -> UnifiedDataModule:
    """The data module that `cfg` describes, with images normalised as `module` expects, their size checked."""
    data: UnifiedDataModule = instantiate(cfg, mean=module.mean, std=module.std)
    data.one_pass = module.one_pass
    module.check(data.image_size)
    return data


def build_saved(path: str, trust: str | Sequence[str] = ()) -> tuple[AnomalyModule, dict[str, Any]]:
    """The detector in a checkpoint, and the checkpoint itself; `trust` are packages as `refuse_foreign` takes them.

    Raises InputError for a checkpoint that cannot be read, or whose configuration cannot or may not be built.
    """
    checkpoint = load_checkpoint(path)
    if "renders" in checkpoint:
        raise InputError(f"ckpt_path={path}: is a decoder of backbone features; expected a detector of uniad train")
    refuse_foreign(checkpoint["config"], f"ckpt_path={path}", trust)
    with as_saved(path), torch.random.fork_rng(devices=[]):  # the caller's random state stays as it is
        saved = OmegaConf.create(checkpoint["config"])
        if "backbone" in saved:
            saved.backbone.weights = "random"  # the checkpoint holds the backbone; nothing is downloaded
        module = build_module(saved, announce=False)
    load_weights(module, checkpoint, path)
    return module, checkpoint


@contextmanager
def as_saved(path: str, fault: str = "its configuration does not fit") -> Iterator[None]:
    """Within this, any error with a checkpoint's own content becomes an InputError: the checkpoint, and the `fault`."""
    try:
        yield
    except Exception as error:  # a class may raise anything for a value that does not fit
        cause: BaseException = error
        while cause.__cause__ is not None and not isinstance(cause, InputError):
            cause = cause.__cause__
        raise InputError(f"ckpt_path={path}: {fault}; {one_line(cause)}") from error


def build_saved_data(
    checkpoint: dict[str, Any],
    module: AnomalyModule,
    given: DictConfig | None = None,
    *,
    evaluates: bool = False,
) -> UnifiedDataModule:
    """The data of a checkpoint with what is `given` in its place; nothing is read yet.

    The inspected part of an image, its white level and channels, and which images are held out are the checkpoint's.
    With `evaluates` no train images are needed, and all labelled images of other data that has no split of its own are
    tested. Raises InputError for another image size.
    """
    saved = OmegaConf.create(checkpoint["config"]).data
    config = saved if given is None else data_config(given, saved)
    with open_dict(config):
        kept = {name: checkpoint["config"]["data"].get(name) for name in ("framing", "held_out")}
        for name, value in kept.items():
            config.pop(name, None)
            if value is not None:
                config[name] = value
        config.defects = None  # nothing trains on them, and a folder that they come from may be elsewhere
        config.white_level = _white_level(checkpoint["config"]["data"], given)
        config.channels = _channels(checkpoint["config"]["data"], given)
        if "framing" in config:
            config.framing.ignore = None  # its file may be elsewhere; the checkpoint has it
        other = _is_other_data(config, saved, given) if evaluates and given is not None else None
    data = build_data(config, module)
    if evaluates:
        trained = checkpoint.get("trained", torch.zeros(0)).tolist()
        data.for_evaluation(trained=None if other is None else trained, other=bool(other))
    if "ignore" in checkpoint:
        try:
            data.framing.ignore = unpack_ignored(checkpoint["ignore"])
        except (ValueError, KeyError) as error:
            raise InputError(f"the checkpoint's ignored pixels: {one_line(error)}; use another checkpoint") from None
    return data


def _white_level(saved: dict[str, Any], given: DictConfig | None) -> int:
    """The checkpoint's white level, or the `given` one where its training had no image of more than 8 bits."""
    known, wanted = white_level_of(saved), AUTO if given is None else given.get("white_level") or AUTO
    if AUTO not in (known, wanted) and check_white_level(wanted) != known:
        raise InputError(f"data.white_level={wanted}, but the checkpoint was trained at {known}; leave it out")
    return as_number(check_white_level(wanted) if known == AUTO else known)


def _channels(saved: dict[str, Any], given: DictConfig | None) -> list[int] | None:
    """The checkpoint's channels; InputError where others are `given`."""
    known = check_channels(saved.get("channels"))
    wanted = None if given is None else check_channels(given.get("channels"))
    if wanted not in (None, known):
        trained = "as the files say" if known is None else f"with {list(known)}"
        raise InputError(f"data.channels={list(wanted or ())}, but the checkpoint was trained {trained}; leave it out")
    return None if known is None else list(known)


def data_config(given: DictConfig, saved: DictConfig) -> DictConfig:
    """The checkpoint's data configuration with what is `given` in its place; InputError for another image size."""
    if "_target_" in given:
        merged = given
    else:
        merged = saved.copy()
        with open_dict(merged):
            merged.update({name: value for name, value in given.items() if value is not None})
            if given.root is not None:
                merged.prepare = None  # never write to a folder that the user names
    if _size(merged) != _size(saved):
        raise InputError(
            f"data.image_size={merged.image_size}, but the checkpoint was trained at {saved.image_size}; "
            f"evaluate with data.image_size={saved.image_size}"
        )
    return merged


def _is_other_data(config: DictConfig, saved: DictConfig, given: DictConfig) -> bool | None:
    """Whether the data to evaluate are not the images of the training; None where their split is kept.

    It is kept where nothing else is `given`, and where the data set or the user has split them. Where `data.root` alone
    is given and the folder of the training does not exist, the data are those of the training, moved.
    """
    source, chosen = config.source, "_target_" in given
    if "test_share" not in source or (source.test_share is not None if chosen else given.root is None):
        return None
    same = os.path.realpath(expand(config.root)) == os.path.realpath(expand(saved.root))
    if not chosen:
        return not same and os.path.isdir(expand(saved.root))
    source.test_share = saved.source.get("test_share", 1.0)
    if not same or source != saved.source:
        source.test_share = 1.0
    return not same


def _size(data: DictConfig) -> Size:
    size = data.image_size
    return pair(size if isinstance(size, int) else list(size), "data.image_size")


@rank_zero_only
def warn(text: str) -> None:
    """Print a warning of one line on stderr, from the first process alone."""
    print_stderr(f"warning: {text}")
