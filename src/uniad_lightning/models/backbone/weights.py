"""Weights of a timm model: read from a file, and checked to have arrived in the model."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.files.torch_file import read_torch_file
from uniad_lightning.files.user_path import expand

PACKAGED_WEIGHTS = Path(__file__).parents[2] / "weights"


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


def check_all_loaded(model: nn.Module, state: dict[str, Tensor], name: str, weights: str) -> None:
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
