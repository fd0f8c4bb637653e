"""The transformer baseline of Fig. 2 (appendix B.1): the vanilla transformer, with one query embedding.

It has full attention and no jitter: masks, jitter and queries in every layer are what the paper adds to it. Where the
paper is silent, all is as in UniAD: learned positions of rows and columns, added to queries and keys; post-norm, with a
LayerNorm that closes the decoder; heads and dropout.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from uniad_lightning.models.ablations.decoders import designed_layers
from uniad_lightning.models.initialization import check_transformer, start_weights
from uniad_lightning.models.layers.transformer import (
    Attention,
    EncoderLayer,
    LayerSizes,
    PositionEmbedding,
    Transformer,
)
from uniad_lightning.types import pair


class VanillaTransformer(nn.Module):
    """Feature tokens (B, N, C) -> their reconstruction (B, N, C), tokens in row-major order.

    `channels` is C, `grid` the (height, width) with N = height x width. The same network as `UniAD` with its decoder
    `one_query`, nothing masked and no jitter, under the same names.

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
        num_encoder_layers: int,
        num_decoder_layers: int,
        dropout: float,
    ):
        super().__init__()
        self.grid = pair(grid, "model.grid")
        check_transformer(hidden_dim, feedforward_dim, num_encoder_layers, num_decoder_layers, dropout)
        sizes = LayerSizes(self.grid[0] * self.grid[1], hidden_dim, feedforward_dim, dropout)
        attention = partial(Attention, dim=hidden_dim, num_heads=num_heads, dropout=dropout, blocked=None)
        self.input_proj = nn.Linear(channels, hidden_dim)
        self.transformer = Transformer(
            dim=hidden_dim,
            position=PositionEmbedding(grid=self.grid, dim=hidden_dim),
            encoder=[EncoderLayer(sizes, attention=attention) for _ in range(num_encoder_layers)],
            decoder=designed_layers("one_query", num_decoder_layers, sizes, attentions=(attention, attention)),
        )
        self.output_proj = nn.Linear(hidden_dim, channels)
        start_weights(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return self.output_proj(self.transformer(self.input_proj(tokens)))
