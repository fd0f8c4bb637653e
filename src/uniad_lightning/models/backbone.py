"""The frozen feature pyramid: any timm model, its levels aligned to one grid (Sec. 3.3, appendix B.3)."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import FeatureInfo, PretrainedCfg
from torch import Tensor, nn

from uniad_lightning.errors import InputError, did_you_mean, one_line
from uniad_lightning.types import pair

PACKAGED_WEIGHTS = Path(__file__).parents[1] / "weights"

# timm warns of every tensor behind the last tapped level; what counts is checked in `_check_all_loaded`.
logging.getLogger("timm").setLevel(logging.ERROR)


class Backbone(nn.Module):
    """Normalised images (B, 3, H, W) -> features (B, C, h, w) of a frozen timm model.

    `name` is a timm model, `levels` the indices of its feature levels, shallow first; they are resized to `grid` with
    aligned corners and concatenated, so C is the sum of their `channels`. `weights` is `pretrained` (timm's hub), a
    file (.safetensors, or .pth read with `weights_only`; a bare name may be one the package carries), or `random`.
    `arguments` go to `timm.create_model`. `mean` and `std` are those of the model's own `pretrained_cfg` unless given.
    Unless `trainable` (Table A5), parameters do not require gradients and the mode stays `eval`.

    Raises InputError for an unknown model, levels it does not have, and weights that cannot be had or do not fit.
    """

    def __init__(
        self,
        *,
        name: str,
        levels: Sequence[int],
        grid: Sequence[int],
        weights: str,
        arguments: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        trainable: bool = False,
    ):
        super().__init__()
        if not levels:
            raise InputError("backbone.levels=[] names no level; expected indices such as [0, 1, 2]")
        self.grid = pair(grid, "model.grid")
        self.trainable = trainable
        self.model = create_feature_model(name, levels, weights, dict(arguments or {}))
        info = _feature_info(self.model)
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        config = _pretrained_config(name)
        self.mean = tuple(mean or config.mean)
        self.std = tuple(std or config.std)
        self.to(memory_format=torch.channels_last)
        self.requires_grad_(trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """A frozen backbone stays in eval mode: its batch statistics are those of its own training."""
        return super().train(mode and self.trainable)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w)."""
        levels = self.model(image.contiguous(memory_format=torch.channels_last))
        return torch.cat(
            [self._align(level, channels) for level, channels in zip(levels, self.channels, strict=True)], 1
        )

    def _align(self, level: Tensor, channels: int) -> Tensor:
        """One level, (B, C_l, h_l, w_l) or channels last, on the common grid: (B, C_l, h, w)."""
        if level.shape[1] != channels:
            level = level.permute(0, 3, 1, 2)
        if tuple(level.shape[-2:]) == self.grid:
            return level
        return F.interpolate(level, size=self.grid, mode="bilinear", align_corners=True)


def create_feature_model(name: str, levels: Sequence[int], weights: str, arguments: dict[str, Any]) -> nn.Module:
    """A timm model that returns the feature maps of `levels`, without the blocks behind the last of them."""
    if not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models())
        raise InputError(f"backbone.name={name!r} is no timm model.{hint}")
    state = None if weights in ("random", "pretrained") else read_weights(weights)
    if weights == "pretrained":
        _give_up_early_without_network()
    if state is not None:
        arguments = {**arguments, "pretrained_cfg_overlay": {"state_dict": state}}
    try:
        model = timm.create_model(
            name, pretrained=weights != "random", features_only=True, out_indices=tuple(levels), **arguments
        )
    except (AssertionError, IndexError):
        count = len(
            _feature_info(timm.create_model(name, features_only=True, **_without_weights(arguments))).channels()
        )
        raise InputError(f"backbone.levels={list(levels)}: {name} has {count} levels, 0 to {count - 1}") from None
    except Exception as error:
        if weights == "pretrained":
            raise InputError(_no_download(name, error)) from error
        if state is not None:
            raise InputError(f"backbone.weights={weights}: does not fit {name}; {one_line(error)}") from error
        raise
    if state is not None:
        _check_all_loaded(model, state, name, weights)
    _drop_unused_blocks(model)
    return model


def read_weights(path_or_name: str) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pth file, by name; a bare file name may be one of the packaged weights."""
    path = Path(path_or_name).expanduser()
    if not path.is_file() and (PACKAGED_WEIGHTS / path.name).is_file() and path.parent == Path("."):
        path = PACKAGED_WEIGHTS / path.name
    if not path.is_file():
        raise InputError(
            f"backbone.weights={path_or_name}: no such file; expected a .safetensors or .pth file, or the word "
            "pretrained or random"
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state.get("model", state))
        return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    except (SafetensorError, RuntimeError, EOFError, AttributeError, OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a file of weights; {one_line(error)}") from None
    except Exception as error:  # pickle.UnpicklingError has no narrower base that torch promises
        raise InputError(f"{path}: holds more than tensors and was not loaded; {one_line(error)}") from None


def _check_all_loaded(model: nn.Module, state: dict[str, Tensor], name: str, weights: str) -> None:
    """Timm loads feature models leniently, so count what arrived: every tensor of the model must be in the file."""

    def plain(key: str) -> str:
        # timm's feature wrappers prefix and flatten module names: `model.blocks.0`, `stages_0`.
        return key.removeprefix("model.").replace("_", ".")

    given = {plain(key) for key in state}
    missing = [key for key in model.state_dict() if plain(key) not in given and not key.endswith("num_batches_tracked")]
    if missing:
        raise InputError(
            f"backbone.weights={weights}: does not fit {name}; {len(missing)} of its tensors are missing, first "
            f"{missing[0]}"
        )


def _drop_unused_blocks(model: nn.Module) -> None:
    """EfficientNet-like feature models keep and run every block; cut their list behind the last tapped one."""
    *parents, last = _feature_info(model).module_name()[-1].split(".")
    container = ".".join(parents)
    if last.isdigit() and isinstance(getattr(model, container, None), nn.Sequential):
        setattr(model, container, getattr(model, container)[: int(last) + 1])


def _give_up_early_without_network() -> None:
    """Without a name server the hub's client retries for most of a minute; tell it to look in its cache alone."""
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if proxied:
        return
    try:
        socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        huggingface_hub.constants.HF_HUB_OFFLINE = True


def _feature_info(model: nn.Module) -> FeatureInfo:
    """What timm says of the model's levels: channels, strides, names of modules."""
    info = model.feature_info
    assert isinstance(info, FeatureInfo)
    return info


def _without_weights(arguments: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key != "pretrained_cfg_overlay"}


def _pretrained_config(name: str) -> PretrainedCfg:
    """Timm's record of the weights of `name`; one of a model without weights holds its input's defaults."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def _no_download(name: str, error: Exception) -> str:
    config = _pretrained_config(name)
    wanted = f"model.safetensors of {config.hf_hub_id}" if config.hf_hub_id else config.url
    if not wanted:
        return f"backbone.weights=pretrained: timm has no weights for {name}; name a tagged model, a file, or random"
    return (
        f"backbone.weights=pretrained: {wanted} (for {name}) could not be downloaded ({type(error).__name__}); fetch "
        "the file on a machine with network and give it as backbone.weights=FILE"
    )
