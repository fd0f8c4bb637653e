"""The mask of neighbor masked attention (Sec. 3.2, Fig. 5): a token attends neither to itself nor to its neighbors."""

import torch
from torch import Tensor

from uniad_lightning.errors import InputError
from uniad_lightning.types import Size


def largest_window(length: int) -> int:
    """The largest odd window along an axis of `length` cells that leaves each cell something outside it."""
    return length - 1 if length % 2 == 0 else length - 2


def neighbor_mask(grid: Size, neighbor_size: Size) -> Tensor:
    """The attention mask (N, N) bool: entry [i, j] True = token i may not attend to token j.

    `neighbor_size` is the (height, width) of the window around each token, in cells, both odd; it is cut off at the
    border of the grid. The mask is symmetric and its diagonal is True.

    Raises InputError for an even or non-positive size and for a window that leaves some token nothing to attend to.
    """
    for name, size in zip(("height", "width"), neighbor_size, strict=True):
        if size < 1 or size % 2 == 0:
            raise InputError(
                f"model.neighbor_size={list(neighbor_size)}: its {name} {size} is no odd number of cells; "
                f"expected an odd size such as {max(size - 1, 1)} or {max(size + 1, 1)}"
            )
    blocked_rows, blocked_columns = (
        (torch.arange(length)[:, None] - torch.arange(length)).abs() <= size // 2
        for length, size in zip(grid, neighbor_size, strict=True)
    )
    if blocked_rows.all(dim=1).any() and blocked_columns.all(dim=1).any():
        legal = [max(largest_window(length), 1) for length in grid]
        raise InputError(
            f"model.neighbor_size={list(neighbor_size)} leaves a token of the {grid[0]}x{grid[1]} grid nothing to "
            f"attend to; the largest legal square window is {max(legal)}"
        )
    blocked = blocked_rows[:, None, :, None] & blocked_columns[None, :, None, :]  # (h, w, h, w)
    return blocked.reshape(grid[0] * grid[1], -1)  # (N, N)
