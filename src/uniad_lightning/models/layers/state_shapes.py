"""Buffers whose length depends on the data: a state dict of any length loads into a module that is not fitted yet."""

from collections.abc import Collection
from functools import partial
from typing import Any

from torch import Tensor, nn


def follow_state(module: nn.Module, names: Collection[str], lengths: Collection[int] | None = None) -> None:
    """Resizes the buffers `names` of `module` along their first axis to the length they have in a state dict it loads.

    `lengths` are those allowed, None any. Any other mismatch is an error of `load_state_dict`, as usual.
    """
    module.register_load_state_dict_pre_hook(partial(_resize, frozenset(names), lengths))


def _resize(
    names: Collection[str],
    lengths: Collection[int] | None,
    module: nn.Module,
    state_dict: dict[str, Tensor],
    prefix: str,
    *_: Any,
) -> None:
    for name in names:
        saved, built = state_dict.get(f"{prefix}{name}"), module.get_buffer(name)
        if saved is None or saved.ndim != built.ndim or saved.shape[1:] != built.shape[1:] or len(saved) == len(built):
            continue
        if lengths is None or len(saved) in lengths:
            setattr(module, name, built.new_empty(saved.shape))
