"""What the reconstruction networks share when they are built: checks of their sizes, and their first weights."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from uniad_lightning.errors import InputError


def check_counts(counts: Mapping[str, int], *, least: int = 1) -> None:
    """Checks that each value, by its key below `model`, is a whole number of at least `least`.

    Raises InputError for the first that is not.
    """
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"model.{name}={value}: expected a whole number of at least {least}")


def check_above(values: Mapping[str, float], *, least: float = 0, inclusive: bool = False) -> None:
    """Checks that each value, by its key below `model`, is a finite number above `least`; InputError for the first."""
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not (value > least or (inclusive and value == least)):
            raise InputError(f"model.{name}={value}: expected {'at least' if inclusive else 'more than'} {least}")


def check_flags(values: Mapping[str, bool]) -> None:
    """Checks that each value, by its key below `model`, is true or false; InputError for the first that is not."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise InputError(f"model.{name}={value}: expected true or false")


def check_transformer(
    hidden_dim: int, feedforward_dim: int, num_encoder_layers: int, num_decoder_layers: int, dropout: float
) -> None:
    """Checks that sizes are positive, that encoder or decoder has a layer, and that `dropout` is in [0, 1).

    Raises InputError for what does not fit.
    """
    check_counts({"hidden_dim": hidden_dim, "feedforward_dim": feedforward_dim})
    layers = {"num_encoder_layers": num_encoder_layers, "num_decoder_layers": num_decoder_layers}
    check_counts(layers, least=0)
    if not any(layers.values()):
        raise InputError(
            "model.num_encoder_layers=0 and model.num_decoder_layers=0 leave nothing to learn with; expected at least "
            "1 of either"
        )
    if not isinstance(dropout, float | int) or not 0 <= dropout < 1:
        raise InputError(f"model.dropout={dropout}: expected a number from 0 to below 1")


def start_weights(network: nn.Module) -> None:
    """Draws the weights of linear layers and convolutions xavier-uniform and sets biases 0, as the reference does."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def share_first_layers(*stacks: nn.ModuleList) -> None:
    """Copies the first layer's queries and packed projections to all layers of its stack, as the reference's clones."""
    for stack in stacks:
        for layer in stack[1:]:
            for name, parameter in layer.named_parameters():
                if name == "query" or name.endswith("in_proj_weight"):
                    parameter.copy_(stack[0].get_parameter(name))
