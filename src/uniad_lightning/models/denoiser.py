"""A network that removes noise from features; where it changes a feature most, the feature is anomalous.

Not in the paper. For small noise the difference between an input and what the best denoiser makes of it is the gradient
of the log density of good features, times the variance of the noise (Alain and Bengio 2014, Theorem 1): it is small
where features are frequent and grows with the distance from them, so that nothing needs to keep the network from
copying. UniAD's feature jitter (Eq. 3) is the noise. Its blocks normalise before each sublayer (Xiong et al. 2020),
which bears a learning rate that is an order of magnitude higher than UniAD's, and their attention is linear
(Katharopoulos et al. 2020).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_counts
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.types import pair


class LinearAttention(nn.Module):
    """Self-attention without a softmax (Katharopoulos et al. 2020, Eq. 5 and 7): (B, N, E) -> (B, N, E)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        q, k = F.elu(q) + 1, (F.elu(k) + 1) / x.shape[1]  # (B, heads, N, E/heads); over N, as sums would leave float16
        mixed = q @ (k.transpose(-1, -2) @ v)  # (B, heads, N, E/heads)
        weight = (q @ k.sum(dim=-2).unsqueeze(-1)).clamp_min(1e-6)  # (B, heads, N, 1)
        return self.out((mixed / weight).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Linear attention and a feed-forward network, each on normalised tokens and added to them."""

    def __init__(self, dim: int, num_heads: int, feedforward_dim: int):
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = LinearAttention(dim, num_heads)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.feedforward = nn.Sequential(nn.Linear(dim, feedforward_dim), nn.GELU(), nn.Linear(feedforward_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.feedforward(self.feedforward_norm(x))


class Denoiser(nn.Module):
    """Feature tokens (B, N, C) -> the same without noise (B, N, C), tokens in row-major order.

    `channels` is C, `grid` the (height, width) with N = height x width; `hidden_dim` is E, the width of the blocks, and
    `jitter` the noise that is added in training.

    Raises InputError for sizes that do not fit each other.
    """

    def __init__(
        self,
        *,
        channels: int,
        grid: Sequence[int],
        hidden_dim: int,
        num_heads: int,
        feedforward_dim: int,
        num_layers: int,
        jitter: FeatureJitter,
    ):
        super().__init__()
        self.grid = pair(grid, "model.grid")
        check_counts(
            {
                "hidden_dim": hidden_dim,
                "num_heads": num_heads,
                "feedforward_dim": feedforward_dim,
                "num_layers": num_layers,
            }
        )
        if hidden_dim % num_heads:
            raise InputError(f"model.hidden_dim={hidden_dim} is no multiple of model.num_heads={num_heads}")
        self.jitter = jitter
        self.input_proj = nn.Sequential(nn.Linear(channels, hidden_dim), nn.GELU(), nn.Linear(hidden_dim, hidden_dim))
        self.position = nn.Parameter(0.02 * torch.randn(self.grid[0] * self.grid[1], hidden_dim))
        self.blocks = nn.Sequential(*(Block(hidden_dim, num_heads, feedforward_dim) for _ in range(num_layers)))
        self.output_norm = nn.LayerNorm(hidden_dim)
        self.output_proj = nn.Linear(hidden_dim, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C); the jitter acts in training mode only."""
        x = self.input_proj(self.jitter(tokens)) + self.position  # (B, N, E)
        return self.output_proj(self.output_norm(self.blocks(x)))  # (B, N, C)
