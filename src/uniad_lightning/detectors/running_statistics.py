"""Running statistics, such as those of batch norms, in several processes."""

import torch
from torch import nn


def share_statistics(module: nn.Module) -> None:
    """Give all processes the buffers of numbers of the first, which are those that a checkpoint keeps.

    Each process gathers its own running statistics while training, of its part of the batches. A backbone that is
    frozen has the same everywhere.
    """
    frozen = [part for part in module.modules() if getattr(part, "trainable", True) is False]
    same = {id(buffer) for part in frozen for buffer in part.buffers()}
    for buffer in module.buffers():
        if buffer.is_floating_point() and id(buffer) not in same:
            torch.distributed.broadcast(buffer, 0)
