"""`import_official(cfg)`: convert a checkpoint file of the reference implementation."""

import os
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import InputError, print_stdout, system_reason
from uniad_lightning.files.torch_file import read_torch_file
from uniad_lightning.files.user_path import expand
from uniad_lightning.reference.weights import (
    backbone_names,
    copy_weights,
    is_behind,
    network_grid,
    network_sizes,
    reference_name,
)
from uniad_lightning.training.build import build_module
from uniad_lightning.training.checkpoint import AtomicCheckpointIO
from uniad_lightning.training.checkpoint_format import FORMAT
from uniad_lightning.training.resume import plain

OTHER_NETWORK = "the reference's network is model=uniad model.decoder=a standardize=false; choose these"
# The image size each EfficientNet was made for, whose padding EfficientNet-PyTorch keeps at every other size.
NATIVE_SIZES = (224, 240, 260, 300, 380, 456, 528, 600)
BACKBONE, NETWORK = "backbone.", "reconstruction."
NOT_GIVEN = "data.root_is_not_given"  # no such folder: the images it was trained on are not in the file


class Official(NamedTuple):
    """A checkpoint of the reference.

    Attributes:
        state_dict: its tensors by name, without the `module.` of parallel training.
        network: the tensors of the reconstruction network, without their prefix.
        settings: this package's config keys with the values it was trained with, as far as the file has them.
    """

    state_dict: dict[str, Tensor]
    network: dict[str, Tensor]
    settings: dict[str, Any]


def import_official(cfg: DictConfig) -> Path:
    """Write the checkpoint `cfg.file` of the reference as a checkpoint of this package, `cfg.output`.

    Sizes of the network are read off the tensors; other settings in the file have to be those of `cfg`.

    Raises InputError for a file that is no such checkpoint, or not of the detector that `cfg` describes, and for an
    output that exists or cannot be written.
    """
    output = _free(cfg.output, cfg.overwrite)
    official = read_official(cfg.file)
    try:
        module = _build_filled(cfg, official)
    except InputError as error:
        raise InputError(f"file={cfg.file}: {error}") from None
    config = {name: value for name, value in plain(cfg).items() if name not in ("file", "output")}
    checkpoint = {"format": FORMAT, "config": config, "state_dict": module.state_dict(), "loops": {}, "categories": []}
    AtomicCheckpointIO().save_checkpoint(checkpoint, output)
    print_stdout(
        f"{output}: {cfg.backbone.name} and UniAD of {cfg.model.num_encoder_layers} + {cfg.model.num_decoder_layers} "
        f"layers, {cfg.model.hidden_dim} wide, on {cfg.model.grid} cells, for images of {cfg.data.image_size} pixels"
    )
    return output


def _build_filled(cfg: DictConfig, official: Official) -> FeatureReconstruction:
    """The detector of `cfg`, whose sizes are set to those of `official`, with its weights."""
    native = _native_size(cfg)
    sizes = network_sizes(official.network)
    channels = sizes.pop("channels")
    with open_dict(cfg):
        cfg.model.update(sizes, grid=list(network_grid(official.network)))
        if cfg.backbone.padding_for is None:
            cfg.backbone.padding_for = native
        if OmegaConf.is_missing(cfg.data, "root"):
            cfg.data.root = NOT_GIVEN
    _refuse_other_settings(cfg, official.settings)
    module = build_module(cfg, announce=False)
    if not isinstance(module, FeatureReconstruction):
        raise InputError(OTHER_NETWORK)
    _refuse_other_levels(cfg, module, channels)
    fill(module, official.state_dict)
    return module


def read_official(path: str) -> Official:
    """Read the reference's checkpoint at `path`; creates nothing but tensors and plain values.

    Raises InputError for any other file, and for one that holds other objects.
    """
    if not expand(path).is_file():
        raise InputError(f"file={path}: no such file; expected a checkpoint of the reference, such as ckpt.pth.tar")
    loaded = _load(path)
    state_dict = loaded.get("state_dict") if isinstance(loaded, dict) else None
    if not isinstance(state_dict, dict) or not all(isinstance(value, Tensor) for value in state_dict.values()):
        raise InputError(f"file={path}: is no checkpoint of the reference; expected tensors by name as state_dict")
    named = {str(name).removeprefix("module."): value for name, value in state_dict.items()}
    network = {name.removeprefix(NETWORK): value for name, value in named.items() if name.startswith(NETWORK)}
    if not network or len(network) == len(named):
        absent = BACKBONE if network else NETWORK
        raise InputError(
            f"file={path}: is no checkpoint of the reference; none of its {len(named)} tensors begins with "
            f"'module.{absent}'; expected those of backbone and reconstruction"
        )
    return Official(named, network, _settings(loaded.get("arch")))


def fill(module: FeatureReconstruction, state_dict: Mapping[str, Tensor]) -> None:
    """Put the reference's tensors, named without `module.`, into the backbone and the network of `module`.

    Raises InputError that names the first missing, unknown or misshapen tensor.
    """
    pyramid = module.backbone.model.state_dict()
    own = {BACKBONE + name: pyramid[timm_name] for timm_name, name in backbone_names(pyramid).items()}
    used = [name.removeprefix(BACKBONE) for name in own]
    own |= {NETWORK + reference_name(name): parameter for name, parameter in module.network.named_parameters()}
    given = {
        name: value
        for name, value in state_dict.items()
        if not (name.startswith(BACKBONE) and is_behind(name.removeprefix(BACKBONE), used))
    }
    try:
        copy_weights(own, given, whole="a backbone and a reconstruction network")
    except InputError as error:
        hint = f"; is it of another backbone than backbone.name={module.backbone.name}?"
        raise InputError(f"{error}{hint if str(error).startswith(BACKBONE) else ''}") from None


class _Unread:
    """Replaces a NumPy value in a file, such as the reference's best metric, which is not read."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


# Besides tensors the reference saves its settings, in dictionaries of the package easydict, and a NumPy number.
_STAND_INS = [
    (OrderedDict, "easydict.EasyDict"),
    (_Unread, "numpy.dtype"),
    (_Unread, "numpy.core.multiarray.scalar"),
    (_Unread, "numpy._core.multiarray.scalar"),
]


def _load(path: str) -> Any:
    with torch.serialization.safe_globals(_STAND_INS):  # type: ignore[arg-type]
        return read_torch_file(expand(path), f"file={path}")


def _settings(arch: Any) -> dict[str, Any]:
    """This package's config keys with their values in the reference's description of its parts, `arch`."""
    listed = [part for part in arch if isinstance(part, dict)] if isinstance(arch, list) else []
    parts = {str(part.get("name")): part for part in listed}
    kind = re.search(r"efficientnet_(b\d)$", str(parts.get("backbone", {}).get("type")))
    settings: dict[str, Any] = {"backbone.name": f"tf_efficientnet_{kind[1]}"} if kind else {}
    options = parts.get("reconstruction", {}).get("kwargs")
    options = options if isinstance(options, dict) else {}
    if "nhead" in options:
        settings["model.num_heads"] = options["nhead"]
    if "activation" in options:
        settings["activation"] = options["activation"]
    window = options.get("neighbor_mask")
    if isinstance(window, dict):
        settings |= {"model.neighbor_size": window.get("neighbor_size"), "model.masked": window.get("mask")}
    elif "neighbor_mask" in options:
        settings["model.masked"] = [False, False, False]
    neck, size = parts.get("neck", {}).get("kwargs"), options.get("feature_size")
    strides = neck.get("outstrides") if isinstance(neck, dict) else None
    if isinstance(size, Sequence) and isinstance(strides, Sequence) and len(strides) == 1:
        settings["data.image_size"] = [side * strides[0] for side in size]
    return {key: value for key, value in settings.items() if value is not None}


def _native_size(cfg: DictConfig) -> int:
    """The image size that the backbone of `cfg` was made for. InputError for parts that the reference lacks."""
    if cfg.model._target_ != "uniad_lightning.models.uniad.UniAD" or cfg.model.decoder != "a" or cfg.standardize:
        raise InputError(OTHER_NETWORK)
    name = re.fullmatch(r"tf_efficientnet_b([0-7])(\..*)?", cfg.backbone.name)
    if name is None:
        raise InputError(
            f"backbone.name={cfg.backbone.name} is not imported; expected tf_efficientnet_b0 to tf_efficientnet_b7, "
            "such as backbone=efficientnet_b4"
        )
    return NATIVE_SIZES[int(name[1])]


def _refuse_other_settings(cfg: DictConfig, settings: Mapping[str, Any]) -> None:
    """Raises InputError for the first setting in which `cfg` differs from the `settings` in the file."""
    for key, value in settings.items():
        current = "relu" if key == "activation" else OmegaConf.select(cfg, key)
        if key == "backbone.name":
            current = current.split(".")[0]
        if _as_pair(current) == _as_pair(value):
            continue
        if key == "activation":
            raise InputError(f"was trained with activation {value}; the network here has {current} alone")
        value = _as_word(value)
        raise InputError(f"was trained with {key}={value}, not {_as_word(current)}; give '{key}={value}'")


def _as_pair(value: Any) -> list[Any]:
    """A list as it is; one value, such as a size, as the pair it stands for."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value, value]


def _as_word(value: Any) -> str:
    """A plain value as written on the command line."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{','.join(map(_as_word, value))}]"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _refuse_other_levels(cfg: DictConfig, module: FeatureReconstruction, channels: int) -> None:
    given = sum(module.backbone.channels)
    if given != channels:
        raise InputError(
            f"{NETWORK}input_proj.weight takes {channels} channels, but backbone.levels={list(cfg.backbone.levels)} of "
            f"{cfg.backbone.name} give {given}; set backbone.name and backbone.levels to what it was trained on"
        )


def _free(path: str, overwrite: bool) -> Path:
    """`path` expanded; raises InputError where no file can be written."""
    output = expand(path)
    if output.is_dir() or (output.exists() and not overwrite):
        raise InputError(f"output={path}: exists already; choose another output, or overwrite=true")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(output.parent, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise InputError(f"output={path}: cannot be written; {system_reason(error)}") from None
    return output
