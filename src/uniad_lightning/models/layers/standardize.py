"""Channel standardisation of backbone features: zero mean and unit deviation over the good training images.

Not in the paper, which reconstructs raw features; off by default. A backbone's channels differ in scale by orders of
magnitude, and with them their weight in the loss and the first steps of the training.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Standardize(nn.Module):
    """(x - mean) / std per channel of tokens (B, N, C); the identity until `fit`. Its statistics are in checkpoints."""

    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, *, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, tokens: Iterable[Tensor]) -> None:
        """Compute the statistics of all `tokens`, each (B, N, C); a channel that never varies keeps its scale."""
        count, (total, squares) = 0, torch.zeros(2, len(self.mean), dtype=torch.float64)
        for batch in tokens:
            flat = batch.flatten(0, 1).cpu().double()  # (B*N, C); not every device has float64
            count += len(flat)
            total += flat.sum(0)
            squares += flat.square().sum(0)
        mean = total / count
        std = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(std.where(std > 1e-6 * mean.abs().max(), torch.ones_like(std)))
        self.fitted.fill_(True)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return (tokens - self.mean) / self.std
