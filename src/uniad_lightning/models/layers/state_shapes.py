"""Buffers whose length depends on the data: a state dict of any length loads into a module that has none yet."""

from collections.abc import Collection
from functools import partial
from typing import Any

from torch import Tensor, nn


def follow_state(module: nn.Module, names: Collection[str], lengths: Collection[int] | None = None) -> None:
    """Gives the buffers `names` of `module` the length along their first axis that they have in a state it loads.

    `lengths` are those allowed, None any. A state that departs otherwise is refused by `load_state_dict` as ever.
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
        saved, own = state_dict.get(f"{prefix}{name}"), module.get_buffer(name)
        if saved is None or saved.ndim != own.ndim or saved.shape[1:] != own.shape[1:] or len(saved) == len(own):
            continue
        if lengths is None or len(saved) in lengths:
            setattr(module, name, own.new_empty(saved.shape))
