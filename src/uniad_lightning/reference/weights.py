"""Weights of the reference implementation (github.com/zhiyuanyou/UniAD): its parameter names, and its network."""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.uniad import UniAD

_LAYER_NAMES = {
    "attention": "self_attn",
    "attention_norm": "norm1",
    "encoded_attention": "self_attn",
    "encoded_norm": "norm1",
    "previous_attention": "multihead_attn",
    "previous_norm": "norm2",
    "feedforward.0": "linear1",
    "feedforward.3": "linear2",
}
# Parts of a block in timm and in EfficientNet-PyTorch. Before the depthwise convolution a block that expands has one
# more pair of convolution and batch norm, which shifts the numbers.
_SQUEEZE = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
_EXPANDING = _SQUEEZE | {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
_PLAIN = _SQUEEZE | {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
_BLOCK = re.compile(rf"_blocks\.(\d+)\.({'|'.join(_EXPANDING.values())})\.\w+")
_HEAD = re.compile(r"(_conv_head|_bn1|_fc)\.\w+")


def reference_name(name: str) -> str:
    """The reference's name of the parameter `name` of a `UniAD`; the tensors have the same layout."""
    if name.startswith(("input_proj.", "output_proj.")):
        return name
    _, part, *rest = name.split(".")
    if part == "position":
        return {"row": "pos_embed.row_embed.weight", "column": "pos_embed.col_embed.weight"}[rest[0]]
    if part == "norm":
        return f"transformer.decoder.norm.{rest[0]}"
    layer, tail = rest[0], ".".join(rest[1:])
    prefix = f"transformer.{part}.layers.{layer}"
    if tail == "query":
        return f"{prefix}.learned_embed.weight"
    if tail.startswith("feedforward_norm."):
        return f"{prefix}.{'norm2' if part == 'encoder' else 'norm3'}.{rest[-1]}"
    own = next(key for key in _LAYER_NAMES if tail.startswith(f"{key}."))
    return f"{prefix}.{_LAYER_NAMES[own]}{tail.removeprefix(own)}"


def backbone_names(names: Collection[str]) -> dict[str, str]:
    """EfficientNet-PyTorch's name of each of timm's `names` of an EfficientNet's tensors; it has one count of blocks.

    `names` are those of all tensors up to some block.
    """
    matches = [re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)", name) for name in names]
    blocks = sorted({(int(match[1]), int(match[2])) for match in matches if match})
    number = {block: index for index, block in enumerate(blocks)}
    stem = {"conv_stem": "_conv_stem", "bn1": "_bn0"}
    result = {}
    for name, match in zip(names, matches, strict=True):
        if match is None:
            part, tail = name.rsplit(".", 1)
            result[name] = f"{stem[part]}.{tail}"
            continue
        parts = _EXPANDING if f"blocks.{match[1]}.{match[2]}.conv_pwl.weight" in names else _PLAIN
        result[name] = f"_blocks.{number[int(match[1]), int(match[2])]}.{parts[match[3]]}.{match[4]}"
    return result


def is_behind(name: str, used: Iterable[str]) -> bool:
    """Whether EfficientNet-PyTorch's tensor `name` belongs to its head, or to a block after all of the `used` ones."""
    last = max((int(match[1]) for match in map(_BLOCK.fullmatch, used) if match), default=-1)
    block = _BLOCK.fullmatch(name)
    return bool(_HEAD.fullmatch(name)) or (block is not None and int(block[1]) > last)


def network_sizes(state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `UniAD` read off the tensors of the reference's reconstruction network.

    Raises InputError that names a missing tensor.
    """
    hidden_dim, channels = _shape(state_dict, "input_proj.weight", 2)
    return {
        "channels": channels,
        "hidden_dim": hidden_dim,
        "feedforward_dim": _shape(state_dict, "transformer.decoder.layers.0.linear1.weight", 2)[0],
        "num_encoder_layers": _count_layers(state_dict, "encoder"),
        "num_decoder_layers": _count_layers(state_dict, "decoder"),
    }


def network_grid(state_dict: Mapping[str, Tensor]) -> tuple[int, int]:
    """(height, width) in cells, read off the position embedding; raises InputError without one."""
    rows, columns = (_shape(state_dict, f"pos_embed.{axis}_embed.weight", 2)[0] for axis in ("row", "col"))
    return rows, columns


def copy_weights(own: Mapping[str, Tensor], given: Mapping[str, Tensor], *, whole: str) -> None:
    """Copy the `given` tensors into those of `own` of the same names; `whole` describes all of them in messages.

    Raises InputError that names the first missing, unknown or misshapen tensor.
    """
    for name in own:
        if name not in given:
            raise InputError(f"{name}: missing; expected a tensor of shape {tuple(own[name].shape)}")
    for name in given:
        if name not in own:
            raise InputError(f"{name}: unknown; expected {whole} of the reference and nothing else")
    with torch.no_grad():
        for name, tensor in own.items():
            value = given[name]
            if value.shape != tensor.shape:
                raise InputError(f"{name}: has shape {tuple(value.shape)}, expected {tuple(tensor.shape)}")
            tensor.copy_(value)


def reconstruction_from_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    grid: tuple[int, int],
    num_heads: int,
    neighbor_size: tuple[int, int],
    masked: tuple[bool, bool, bool],
) -> nn.Module:
    """A `UniAD` with the reference's weights, in eval mode: tokens (B, N, C) -> (B, N, C).

    Channels, width and numbers of layers are read off the tensors. `grid` and `neighbor_size` are (height, width) in
    cells, `masked` the reference's `mask`: encoder, decoder attention 1, decoder attention 2.

    Raises InputError that names the first missing, unknown or misshapen tensor.
    """
    network = UniAD(
        **network_sizes(state_dict),
        grid=grid,
        num_heads=num_heads,
        dropout=0.1,
        neighbor_size=neighbor_size,
        masked=masked,
        jitter=FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    )
    own = {reference_name(name): parameter for name, parameter in network.named_parameters()}
    copy_weights(own, state_dict, whole="the reconstruction network")
    return network.eval()


def _shape(state_dict: Mapping[str, Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    if name not in state_dict:
        raise InputError(f"{name}: missing; expected the reconstruction network of the reference")
    shape = tuple(state_dict[name].shape)
    if len(shape) != dimensions:
        raise InputError(f"{name}: has shape {shape}, expected {dimensions} dimensions")
    return shape


def _count_layers(state_dict: Mapping[str, Tensor], stack: str) -> int:
    prefix = f"transformer.{stack}.layers."
    numbers = [name.removeprefix(prefix).split(".")[0] for name in state_dict if name.startswith(prefix)]
    # Not their maximum: a single wrong number would build that many layers before it is refused.
    return len({number for number in numbers if number.isdigit()})
