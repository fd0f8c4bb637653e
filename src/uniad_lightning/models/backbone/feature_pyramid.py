"""The frozen feature pyramid: any timm model, its levels aligned to one grid (Sec. 3.3, appendix B.3)."""

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import timm
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d, Conv2dSame, Format, PatchEmbed
from timm.models import FeatureInfo, PretrainedCfg
from torch import Tensor, nn

from uniad_lightning.errors import InputError, did_you_mean, one_line
from uniad_lightning.files.torch_file import read_torch_file
from uniad_lightning.files.user_path import expand
from uniad_lightning.models.backbone.batch_norm_folding import GATE, Folded
from uniad_lightning.models.backbone.static_padding import pad_as_for
from uniad_lightning.precision import in_float32
from uniad_lightning.types import Size, pair

# On a CPU, activations of more images than these pixels leave its caches and its allocator's reach: half the speed.
PIXELS_AT_ONCE = 4 * 224 * 224
# Arguments of `timm.create_model` by which a configuration of unknown origin would have other files read.
_NAMES_OF_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")
PACKAGED_WEIGHTS = Path(__file__).parents[2] / "weights"

# timm warns of every tensor behind the last tapped level; what counts is checked in `_check_all_loaded`.
logging.getLogger("timm").setLevel(logging.ERROR)


class Backbone(nn.Module):
    """Normalised images (B, 3, H, W) -> features (B, C, h, w) of a frozen timm model.

    `name` is a timm model, `levels` the indices of its feature levels, shallow first; they are resized to `grid` with
    aligned corners and concatenated, so C is the sum of their `channels`. The levels of a vision transformer are its
    blocks, all on one grid: their patch tokens as the residual stream holds them, without class and register tokens
    and without the final norm. `weights` is `pretrained` (timm's hub), a file (.safetensors, or .pth read with
    `weights_only`; a bare name may be one the package carries), or `random`. `arguments` go to `timm.create_model`.
    With `only_deepest` the last of the levels is used alone, which learns faster than all (not in the paper).
    With `padding_for` strided convolutions pad as for images of that size, whatever size comes (not in the paper; the
    reference does). `mean` and `std` are those of the model's own `pretrained_cfg` unless given. Unless `trainable`
    (Table A5), parameters do not require gradients and the mode stays `eval`.

    Raises InputError for an unknown model, levels or arguments it does not have, weights not to be had or unfit, and
    `padding_for` where the model's padding does not depend on the size of its images.
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
        only_deepest: bool = False,
        resize: str = "bilinear",
        padding_for: int | Sequence[int] | None = None,
    ):
        super().__init__()
        if not levels:
            raise InputError("backbone.levels=[] names no level; expected indices such as [0, 1, 2]")
        if resize not in ("bilinear", "nearest"):
            raise InputError(f"backbone.resize={resize}: expected bilinear or nearest")
        self.resize = resize
        if only_deepest:
            levels = levels[-1:]
        self.name = name
        self.levels = [int(level) for level in levels]
        self.grid = pair(grid, "model.grid")
        self.trainable = trainable
        self.model = create_feature_model(name, levels, weights, dict(arguments or {}))
        info = _feature_info(self.model)
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        self.channels_last = getattr(self.model, "output_fmt", Format.NCHW) == Format.NHWC
        config = _pretrained_config(name)
        self.mean = tuple(mean or config.mean)
        self.std = tuple(std or config.std)
        self._folded = Folded({nn.BatchNorm2d: _nothing, BatchNormAct2d: _activation})
        self.to(memory_format=torch.channels_last)
        if padding_for is not None and not pad_as_for(
            self.model, pair(padding_for, "backbone.padding_for"), same=Conv2dSame
        ):
            raise InputError(
                f"backbone.padding_for={padding_for}: {name} pads alike for images of every size; it is for models "
                "whose padding depends on the size, such as tf_efficientnet_b4"
            )
        self.requires_grad_(trainable)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """A frozen backbone stays in eval mode: its batch statistics are those of its own training."""
        return super().train(mode and self.trainable)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), in float32 also under autocast, unless the backbone learns."""
        image = image.contiguous(memory_format=torch.channels_last)
        learning = self.model.training or any(parameter.requires_grad for parameter in self.model.parameters())
        if learning or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._features(self.model, image)
        at_once = PIXELS_AT_ONCE // image.shape[2:].numel() if image.device.type == "cpu" else len(image)
        model = self._folded(self.model)
        with in_float32(image.device):  # as they are kept, and as a detector computes them that is not being trained
            return torch.cat([self._features(model, part) for part in image.split(max(at_once, 1))])

    def prepare(self) -> None:
        """Fold batch norms now, alone, so that threads may run the backbone from then on (`folding.GATE`)."""
        with GATE.tracing():
            self._folded(self.model)

    def fold(self) -> None:
        """Fold batch norms for good; the backbone cannot be trained any more."""
        self.model = self._folded(self.model)

    def check(self, size: Size) -> None:
        """Sees that the model takes images of `size` (height, width) pixels; its own word on a blank image is final.

        Raises InputError for a side shorter than the deepest stride or not divided by the patches, and for any size but
        its own to a model of one fixed size.
        """
        given, deepest = f"data.image_size={_as_option(size)}", max(self.strides)
        if min(size) < deepest:
            raise InputError(f"{given}: {self.name} has a stride of {deepest}; expected {deepest} or more")
        error = _refusal(self.model, size)
        if error is None:
            return
        embed = getattr(getattr(self.model, "model", self.model), "patch_embed", None)
        if isinstance(embed, PatchEmbed) and not embed.strict_img_size:
            sides = list(zip(size, embed.patch_size, strict=True))
            below, above = [side // p * p for side, p in sides], [-(-side // p) * p for side, p in sides]
            if below != above:
                raise InputError(
                    f"{given}: {self.name} cuts images into patches of {embed.patch_size[0]}x{embed.patch_size[1]}; "
                    f"expected a size they divide, such as {_as_option(below)} or {_as_option(above)}"
                ) from error
        native = getattr(embed, "img_size", None) or _pretrained_config(self.name).input_size[1:]
        raise InputError(
            f"{given}: {self.name} refuses it ({one_line(error)}); expected {_as_option(native)}, or where the model "
            f"can be built for another size, 'backbone.arguments={{img_size: {_as_option(size)}}}'"
        ) from error

    def _features(self, model: nn.Module, image: Tensor) -> Tensor:
        return torch.cat([self._align(level) for level in model(image)], 1)

    def _align(self, level: Tensor) -> Tensor:
        """One level, (B, C_l, h_l, w_l) or channels last, on the common grid: (B, C_l, h, w)."""
        if self.channels_last:
            level = level.permute(0, 3, 1, 2)
        if tuple(level.shape[-2:]) == self.grid:
            return level
        if self.resize == "nearest":
            return F.interpolate(level, size=self.grid, mode="nearest")
        return F.interpolate(level, size=self.grid, mode="bilinear", align_corners=True)


def _nothing(_: nn.Module) -> nn.Module:
    return nn.Identity()


def _activation(norm: nn.Module) -> nn.Module:
    return norm.get_submodule("act")


def create_feature_model(name: str, levels: Sequence[int], weights: str, arguments: dict[str, Any]) -> nn.Module:
    """A timm model that returns the feature maps of `levels`, without the blocks behind the last of them."""
    if not timm.is_model(name):
        hint = did_you_mean(name.split(".")[0], timm.list_models())
        raise InputError(f"backbone.name={name!r} is no timm model.{hint}")
    if list(levels) != sorted(set(levels)) or levels[0] < 0:
        raise InputError(f"backbone.levels={list(levels)}: expected each level once, shallow first, counted from 0")
    files = [argument for argument in _NAMES_OF_FILES if argument in arguments]
    if files:
        raise InputError(f"backbone.arguments: has {files[0]}; weights are given as backbone.weights alone")
    state = None if weights in ("random", "pretrained") else read_weights(weights)
    if weights == "pretrained":
        _give_up_early_without_network()
    overlay: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": state}}
    try:
        model = timm.create_model(
            name, pretrained=weights != "random", features_only=True, out_indices=tuple(levels), **arguments, **overlay
        )
    except Exception as error:
        mistake = _mistake(error, name, levels, weights, arguments)
        if mistake is None:
            raise
        raise InputError(mistake) from error
    if state is not None:
        _check_all_loaded(model, state, name, weights)
        for module in model.modules():  # timm's records would keep a copy of the whole file
            getattr(module, "pretrained_cfg", {}).pop("state_dict", None)
    _drop_unused_blocks(model)
    return model


def read_weights(path_or_name: str) -> dict[str, Tensor]:
    """Tensors of a .safetensors or .pth file, by name; a bare file name may be one of the packaged weights."""
    path = expand(path_or_name)
    if not path.is_file() and (PACKAGED_WEIGHTS / path.name).is_file() and path.parent == Path("."):
        path = PACKAGED_WEIGHTS / path.name
    if not path.is_file():
        raise InputError(
            f"backbone.weights={path_or_name}: no such file; expected a .safetensors or .pth file, or the word "
            "pretrained or random"
        )
    if path.suffix == ".safetensors":
        try:
            state: Any = load_file(path)
        except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as a file of weights; {one_line(error)}") from None
    else:
        state = read_torch_file(path, str(path), "a file of weights")
        state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{path}: cannot be read as a file of weights; expected tensors by name")
    return {str(name): value.float() if value.is_floating_point() else value for name, value in state.items()}


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
            f"{missing[0]}; expected the tensors of the whole model as timm names them"
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


def _as_option(size: Sequence[int]) -> str:
    """A size as the command line takes it: `224`, or `[224,448]` where the sides differ."""
    return str(size[0]) if size[0] == size[1] else f"[{size[0]},{size[1]}]"


def _refusal(model: nn.Module, size: Size) -> Exception | None:
    """What the model says against one blank image of `size`; timm's families refuse each in its own way."""
    training = model.training
    blank = torch.zeros(1, 3, *size, device=next(model.parameters()).device).to(memory_format=torch.channels_last)
    try:
        with GATE.running(), torch.no_grad():
            model.eval()(blank)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        return error
    finally:
        model.train(training)
    return None


def _pretrained_config(name: str) -> PretrainedCfg:
    """Timm's record of the weights of `name`; one of a model without weights holds its input's defaults."""
    return timm.get_pretrained_cfg(name) or PretrainedCfg()


def _mistake(error: Exception, name: str, levels: Sequence[int], weights: str, arguments: dict[str, Any]) -> str | None:
    """What the user got wrong when timm raised `error` on building the model; None where it was not the user."""
    if isinstance(error, (AssertionError, IndexError)):
        with suppress(AssertionError, IndexError):  # where it was not for the levels it is raised again
            count = len(_feature_info(timm.create_model(name, features_only=True, **arguments)).info)
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
    config = _pretrained_config(name)
    wanted = f"model.safetensors of {config.hf_hub_id}" if config.hf_hub_id else config.url
    if not wanted:
        return f"backbone.weights=pretrained: timm has no weights for {name}; name a tagged model, a file, or random"
    return (
        f"backbone.weights=pretrained: {wanted} (for {name}) could not be downloaded ({type(error).__name__}); fetch "
        "the file on a machine with network and give it as backbone.weights=FILE"
    )
