"""What the entries of a checkpoint have to be: its file may be damaged, or come from anyone."""

from collections.abc import Callable
from typing import Any

import torch

from uniad_lightning.errors import InputError


def check_entries(checkpoint: dict[str, Any], name: str) -> None:
    """Raises InputError, beginning with `name`, for an entry that is not of its kind."""
    for entry, (expected, fits) in _KINDS.items():
        if checkpoint.get(entry) is not None and not fits(checkpoint[entry]):
            raise InputError(f"{name}: its {entry} is damaged, expected {expected}; use another file")


def is_whole(value: Any, dimensions: int | None = None) -> bool:
    """Whether a value is a tensor that holds all its numbers: with a stride of 0 a few bytes claim any size."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and dimensions in (None, value.dim())
        and value.nbytes <= value.untyped_storage().nbytes()
    )


def _is_state(value: Any) -> bool:
    """Whether a value is a state of modules; what a module keeps beside its tensors has a name of its own in torch."""
    return isinstance(value, dict) and all(
        isinstance(key, str) and (key.endswith("_extra_state") or is_whole(one)) for key, one in value.items()
    )


def _are_names(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)


def _are_integers(value: Any) -> bool:
    return is_whole(value, 1) and (value.dtype == torch.int64 or not len(value))


def _are_boundaries(value: Any) -> bool:
    """Whether a value is a calibration as far as an evaluation reads it."""
    if not isinstance(value, dict):
        return False
    categories = value.get("categories", value.get("products"))  # of 0.1.0
    if not isinstance(categories, dict) or not _are_names(list(categories)):
        return False
    return all(map(_is_boundary, (value.get("overall"), *categories.values())))


def _is_boundary(value: Any) -> bool:
    return isinstance(value, dict) and all(type(number) in (int, float) for number in value.values())


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "config": ("settings", lambda value: isinstance(value, dict) and isinstance(value.get("data", {}), dict)),
    "state_dict": ("tensors by name", _is_state),
    "loops": ("entries by name", lambda value: isinstance(value, dict)),
    "global_step": ("a number", lambda value: type(value) is int),
    "categories": ("names", _are_names),
    "trained": ("whole numbers", _are_integers),
    "images": ("bytes", lambda value: is_whole(value, 1)),
    "ignore": ("a mask", lambda value: isinstance(value, dict)),
    "calibration": ("boundaries", _are_boundaries),
    "familiarity": ("entries by name", lambda value: isinstance(value, dict)),
}
