"""Weights of the reference implementation (github.com/zhiyuanyou/UniAD) -> our reconstruction network."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.jitter import FeatureJitter
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


def reference_name(name: str) -> str:
    """The reference's name of our parameter `name` of a `UniAD`; layouts are the same, tensor for tensor."""
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
    ours = next(key for key in _LAYER_NAMES if tail.startswith(f"{key}."))
    return f"{prefix}.{_LAYER_NAMES[ours]}{tail.removeprefix(ours)}"


def reconstruction_from_state_dict(
    state_dict: Mapping[str, Tensor],
    *,
    grid: tuple[int, int],
    num_heads: int,
    neighbor_size: tuple[int, int],
    masked: tuple[bool, bool, bool],
) -> nn.Module:
    """Our reconstruction network with the reference's weights, in eval mode: tokens (B, N, C) -> (B, N, C).

    Channels, width and numbers of layers are read off the tensors. `grid` and `neighbor_size` are (height, width) in
    cells, `masked` the reference's `mask`: encoder, decoder attention 1, decoder attention 2.

    Raises InputError that names the first missing, unknown or misshapen tensor.
    """
    network = UniAD(
        channels=_shape(state_dict, "input_proj.weight", 2)[1],
        grid=grid,
        hidden_dim=_shape(state_dict, "input_proj.weight", 2)[0],
        num_heads=num_heads,
        feedforward_dim=_shape(state_dict, "transformer.decoder.layers.0.linear1.weight", 2)[0],
        num_encoder_layers=_count_layers(state_dict, "encoder"),
        num_decoder_layers=_count_layers(state_dict, "decoder"),
        dropout=0.1,
        neighbor_size=neighbor_size,
        masked=masked,
        jitter=FeatureJitter(scale=20.0, prob=1.0, per="batch"),
    )
    ours = {reference_name(name): parameter for name, parameter in network.named_parameters()}
    for name in ours:
        if name not in state_dict:
            raise InputError(f"{name}: missing; expected a tensor of shape {tuple(ours[name].shape)}")
    for name in state_dict:
        if name not in ours:
            raise InputError(f"{name}: unknown; expected the reconstruction network of the reference and nothing else")
    with torch.no_grad():
        for name, parameter in ours.items():
            value = state_dict[name]
            if value.shape != parameter.shape:
                raise InputError(f"{name}: has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}")
            parameter.copy_(value)
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
    # Not their maximum: one stray number would build that many layers before it is refused.
    return len({number for number in numbers if number.isdigit()})
