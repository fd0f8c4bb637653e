"""The MLP baseline of Fig. 2 (appendix B.1): the vanilla transformer, with linear layers in place of its attentions.

The paper says "revised from the transformer by substituting all attention layers", and that position embeddings go. It
does not mention the rest, which is kept: residuals, the LayerNorm after each, dropout, the feed-forward networks, the
query embedding that the decoder starts from, and the LayerNorm that closes it.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from uniad_lightning.models.ablations.decoders import designed_layers
from uniad_lightning.models.initialization import check_transformer, start_weights
from uniad_lightning.models.layers.transformer import EncoderLayer, LayerSizes, Transformer
from uniad_lightning.types import pair


class Projection(nn.Module):
    """In place of self-attention: linear projection, LayerNorm, ReLU; of each token by itself."""

    def __init__(self, *, dim: int):
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, source: Tensor, position: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E); `source` is `query`."""
        return self.norm(self.linear(query)).relu()


class Fusion(nn.Module):
    """In place of cross-attention: both inputs concatenated along channels, linear projection, LayerNorm, ReLU."""

    def __init__(self, *, dim: int):
        super().__init__()
        self.linear = nn.Linear(2 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, query: Tensor, source: Tensor, position: Tensor) -> Tensor:
        """Two of (B, N, E) -> (B, N, E)."""
        return self.norm(self.linear(torch.cat([query, source], dim=-1))).relu()


class NoPosition(nn.Module):
    """No position embedding: the MLP has none."""

    def forward(self) -> Tensor:
        """Nothing, (0,)."""
        return torch.empty(0)


class MLP(nn.Module):
    """Feature tokens (B, N, C) -> their reconstruction (B, N, C), tokens in row-major order.

    `channels` is C, `grid` the (height, width) with N = height x width.

    Raises InputError for sizes that do not fit each other.
    """

    def __init__(
        self,
        *,
        channels: int,
        grid: Sequence[int],
        hidden_dim: int,
        feedforward_dim: int,
        num_encoder_layers: int,
        num_decoder_layers: int,
        dropout: float,
    ):
        super().__init__()
        self.grid = pair(grid, "model.grid")
        check_transformer(hidden_dim, feedforward_dim, num_encoder_layers, num_decoder_layers, dropout)
        sizes = LayerSizes(self.grid[0] * self.grid[1], hidden_dim, feedforward_dim, dropout)
        self_attention, cross_attention = partial(Projection, dim=hidden_dim), partial(Fusion, dim=hidden_dim)
        self.input_proj = nn.Linear(channels, hidden_dim)
        self.transformer = Transformer(
            dim=hidden_dim,
            position=NoPosition(),
            encoder=[EncoderLayer(sizes, attention=self_attention) for _ in range(num_encoder_layers)],
            decoder=designed_layers(
                "one_query", num_decoder_layers, sizes, attentions=(self_attention, cross_attention)
            ),
        )
        self.output_proj = nn.Linear(hidden_dim, channels)
        start_weights(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.output_proj(self.transformer(self.input_proj(tokens)))
