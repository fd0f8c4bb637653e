"""A torchmetrics metric whose states are summed over the ranks: the only place that relies on private torchmetrics."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric


class SummedStates(Metric):
    """States of a fixed size that are summed over the ranks, and follow the module to its device without being cast.

    A two-dimensional state counts over bins, its columns: ranks exchange those columns alone that any of them filled.
    """

    def add_summed(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Add the state `name`, zeros of `shape`, as an attribute."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")
        # Private: `add_state` keeps a second copy of each state for `reset` to clone. One expanded zero will do.
        self._defaults[name] = torch.zeros((), dtype=dtype).expand(shape)

    @property
    def is_synced(self) -> bool:
        """Whether the states are those of all ranks."""
        return self._is_synced  # private: torchmetrics has no public name for it

    def _states(self) -> dict[str, Tensor]:
        return {name: state for name, state in self.metric_state.items() if isinstance(state, Tensor)}

    def reset(self) -> None:
        """Sets all states to zero."""
        with torch.inference_mode(False):  # Lightning resets in inference mode; such states could not be used outside
            super().reset()

    def _copy_state_dict(self) -> dict[str, Tensor | list[Any]]:
        # Private: `sync` clones every state by it. `_sync_dist` makes new tensors, so references will do.
        return dict(self._states())

    def _sync_dist(self, dist_sync_fn: Callable[..., Any] | None = None, process_group: Any | None = None) -> None:
        # Private: the base gathers the whole states of all ranks on each rank and sums there; the public argument
        # `dist_sync_fn` may replace the gathering, but is called for one state at a time, without the filled columns.
        group = process_group or self.process_group
        if dist.get_world_size(group) == 1:
            return
        low, high = self._filled_columns(group)
        for name, state in self._states().items():
            merged = state.clone()
            window = merged[:, low:high] if merged.ndim == 2 else merged
            if window.numel():
                total = window.contiguous()
                dist.all_reduce(total, group=group)
                window.copy_(total)
            setattr(self, name, merged)

    def _filled_columns(self, group: Any) -> tuple[int, int]:
        """First and last + 1 of the columns in which a two-dimensional state of any rank is not zero."""
        tables = [state for state in self._states().values() if state.ndim == 2]
        if not tables:
            return 0, 0
        filled = torch.stack([table.any(0) for table in tables]).any(0).nonzero()
        ends = [-int(filled[0]), int(filled[-1]) + 1] if len(filled) else [-tables[0].shape[1], 0]
        span = torch.tensor(ends, device=tables[0].device)
        dist.all_reduce(span, op=dist.ReduceOp.MAX, group=group)
        return -int(span[0]), int(span[1])

    def _apply(self, fn: Callable[..., Any], exclude_state: Sequence[str] = "") -> Any:
        # Private, of torch as well: the one hook for a move. The base casts states, and `module.to(bfloat16)` would
        # ruin the scores; `exclude_state` is its own way out. MPS has no float64.
        moved = super()._apply(fn, exclude_state=(*exclude_state, *self._states()))
        home = torch.device("cpu") if self.device.type == "mps" else self.device
        for name, state in self._states().items():
            setattr(self, name, state.to(home))
        return moved
