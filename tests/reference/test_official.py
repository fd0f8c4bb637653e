"""Parity with the reference implementation, whose weights, outputs, loss and gradients are in tests/data."""

import ast
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from uniad_lightning.errors import InputError
from uniad_lightning.models.losses import MSELoss
from uniad_lightning.reference.weights import reconstruction_from_state_dict, reference_name
from uniad_lightning.scoring import upsample

FILES = sorted(Path(__file__).parent.glob("official_uniad_*.safetensors"))


def load(path):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        meta = {name: ast.literal_eval(value) for name, value in file.metadata().items()}
    weights = {name[2:]: value for name, value in tensors.items() if name.startswith("w/")}
    return tensors, weights, meta


def build(weights, meta):
    return reconstruction_from_state_dict(
        weights,
        grid=tuple(meta["grid"]),
        num_heads=meta["heads"],
        neighbor_size=tuple(meta["window"]),
        masked=tuple(meta["masked"]),
    )


def worst(ours, theirs):
    """Largest difference, in units of the expected tensor's largest value."""
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_forward_maps_loss_and_gradients_agree(path):
    tensors, weights, meta = load(path)
    network = build(weights, meta)
    tokens = tensors["feature"].flatten(2).transpose(1, 2)  # (B, N, C)
    reconstruction = network(tokens)
    expected = tensors["reconstruction"].flatten(2).transpose(1, 2)
    assert worst(reconstruction, expected) < 1e-5

    loss = MSELoss()
    h, w = meta["grid"]
    maps = loss.anomaly_map(tokens, reconstruction).unflatten(1, (h, w))
    assert worst(maps, tensors["score_map"][:, 0]) < 1e-5
    upsampled = upsample(maps, (h * meta["stride"], w * meta["stride"]))
    assert worst(upsampled, tensors["score_map_upsampled"][:, 0]) < 1e-5
    value = loss(tokens, reconstruction)
    assert worst(value[None], tensors["loss"]) < 1e-5

    value.backward()
    for name, parameter in network.named_parameters():
        difference = worst(parameter.grad, tensors[f"g/{reference_name(name)}"])
        assert difference < 1e-4, f"{name}: {difference}"


def test_files_are_two_and_every_reference_tensor_is_used():
    assert len(FILES) == 2
    for path in FILES:
        _, weights, meta = load(path)
        network = build(weights, meta)
        assert {reference_name(name) for name, _ in network.named_parameters()} == set(weights)
        assert not list(network.buffers()) or all(b.dtype == torch.bool for b in network.buffers())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda w: w.pop("transformer.decoder.layers.1.norm3.bias"), "transformer.decoder.layers.1.norm3.bias"),
        (lambda w: w.pop("input_proj.weight"), "input_proj.weight"),
        (lambda w: w.update({"neck.weight": torch.zeros(2)}), "neck.weight"),
        (lambda w: w.update({"output_proj.bias": torch.zeros(5)}), "output_proj.bias"),
        (lambda w: w.update({"transformer.encoder.layers.x.norm1.bias": torch.zeros(16)}), "layers.x.norm1.bias"),
    ],
)
def test_wrong_keys_and_shapes_are_refused_by_name(change, named):
    _, weights, meta = load(FILES[-1])
    change(weights)
    with pytest.raises(InputError, match=named.replace(".", r"\.")):
        build(weights, meta)


def test_wrong_grid_is_refused_by_name():
    _, weights, meta = load(FILES[-1])
    with pytest.raises(InputError, match="pos_embed|learned_embed"):
        build(weights, {**meta, "grid": [5, 6]})
