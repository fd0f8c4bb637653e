"""The transformer of UniAD: neighbor masked encoder and layer-wise query decoder (Sec. 3.2, Fig. 3).

Read top down: position embedding, attention, feed-forward network, encoder layer, decoder layer. Post-norm, as in the
reference implementation (github.com/zhiyuanyou/UniAD). Shapes: B images, N = h*w tokens in row-major order, E width.
`scaled_dot_product_attention` and `Dropout` do what torch's own do, faster on a CPU.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_counts
from uniad_lightning.models.kernels.dropout import Dropout, scaled_dot_product_attention
from uniad_lightning.types import Size

MakeAttention = Callable[[], nn.Module]  # of `Attention`, or a module with the same inputs and output


class LayerSizes(NamedTuple):
    """What all layers of encoder and decoder have in common.

    Attributes:
        num_tokens: N.
        dim: E.
        feedforward_dim: width of the feed-forward network's hidden layer.
        dropout: probability, in the feed-forward network and on the output of each sublayer.
    """

    num_tokens: int
    dim: int
    feedforward_dim: int
    dropout: float


class PositionEmbedding(nn.Module):
    """Learned position of each cell of the grid: its column's half, then its row's half (reference); -> (N, E)."""

    def __init__(self, *, grid: Size, dim: int):
        super().__init__()
        if dim % 2:
            raise InputError(f"model.hidden_dim={dim} is odd; the position embedding needs two equal halves")
        self.row = nn.Parameter(torch.rand(grid[0], dim // 2))
        self.column = nn.Parameter(torch.rand(grid[1], dim // 2))

    def forward(self) -> Tensor:
        """(N, E)."""
        h, w = len(self.row), len(self.column)
        columns = self.column[None, :, :].expand(h, w, -1)  # (h, w, E/2)
        rows = self.row[:, None, :].expand(h, w, -1)  # (h, w, E/2)
        return torch.cat([columns, rows], dim=-1).flatten(0, 1)  # (N, E)


class Attention(nn.Module):
    """Multi-head attention whose queries and keys carry positions and whose values do not.

    `blocked` is the (N, N) bool mask, True = may not attend, or None for full attention. The projection of query, key
    and value is one packed (3E, E) weight with `nn.MultiheadAttention`'s initialisation.
    """

    visible: Tensor | None

    def __init__(self, *, dim: int, num_heads: int, dropout: float, blocked: Tensor | None):
        super().__init__()
        check_counts({"num_heads": num_heads})
        if dim % num_heads:
            raise InputError(f"model.hidden_dim={dim} is no multiple of model.num_heads={num_heads}")
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * dim, dim)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        self.register_buffer("visible", None if blocked is None else ~blocked, persistent=False)

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, E) -> (B, heads, N, E/heads)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def forward(self, query: Tensor, source: Tensor, position: Tensor) -> Tensor:
        """Attention of `query` (B, N, E) or (1, N, E) to `source` (B, N, E); `position` is (N, E); -> (B, N, E)."""
        (wq, wk, wv), (bq, bk, bv) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q = self._heads(F.linear(query + position, wq, bq))  # (B or 1, heads, N, E/heads)
        k = self._heads(F.linear(source + position, wk, bk))  # (B, heads, N, E/heads)
        v = self._heads(F.linear(source, wv, bv))  # (B, heads, N, E/heads)
        x = scaled_dot_product_attention(
            q.expand_as(k), k, v, attn_mask=self.visible, dropout_p=self.dropout if self.training else 0.0
        )  # (B, heads, N, E/heads)
        return self.out_proj(x.transpose(1, 2).flatten(2))  # (B, N, E)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between them (Table A1): (B, N, E) -> (B, N, E)."""

    def __init__(self, sizes: LayerSizes):
        super().__init__(
            nn.Linear(sizes.dim, sizes.feedforward_dim),
            nn.ReLU(),
            Dropout(sizes.dropout),
            nn.Linear(sizes.feedforward_dim, sizes.dim),
        )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward network, each with residual and LayerNorm."""

    def __init__(self, sizes: LayerSizes, *, attention: MakeAttention):
        super().__init__()
        self.attention = attention()
        self.attention_norm = nn.LayerNorm(sizes.dim)
        self.feedforward = FeedForward(sizes)
        self.feedforward_norm = nn.LayerNorm(sizes.dim)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, x, position)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class DecoderLayer(nn.Module):
    """The layer-wise query decoder's layer (Sec. 3.2): two attentions and a feed-forward network.

    The layer's own learned queries (N, E) attend to the encoder's output, and the result to the previous layer's
    output. Each step has a residual connection and a LayerNorm.
    """

    def __init__(self, sizes: LayerSizes, *, encoded_attention: MakeAttention, previous_attention: MakeAttention):
        super().__init__()
        self.query = nn.Parameter(torch.randn(sizes.num_tokens, sizes.dim))
        self.encoded_attention = encoded_attention()
        self.encoded_norm = nn.LayerNorm(sizes.dim)
        self.previous_attention = previous_attention()
        self.previous_norm = nn.LayerNorm(sizes.dim)
        self.feedforward = FeedForward(sizes)
        self.feedforward_norm = nn.LayerNorm(sizes.dim)
        self.dropout = Dropout(sizes.dropout)

    def forward(self, previous: Tensor, encoded: Tensor, position: Tensor) -> Tensor:
        """The previous layer's output and the encoder's output, both (B, N, E) -> (B, N, E)."""
        query = self.query[None]  # (1, N, E): the same for every image, so projected once
        x = self.encoded_norm(query + self.dropout(self.encoded_attention(query, encoded, position)))  # (B, N, E)
        x = self.previous_norm(x + self.dropout(self.previous_attention(x, previous, position)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class Transformer(nn.Module):
    """Encoder and decoder over one grid: (B, N, E) -> (B, N, E).

    `position()` gives the positions (N, E). The first decoder layer has the encoder's output as its previous one, too
    (R). Without decoder layers the encoder's output is the result (4+0 in Table 5b); without encoder layers the decoder
    attends to the input (0+4). The closing LayerNorm is there in any case (R).
    """

    def __init__(self, *, dim: int, position: nn.Module, encoder: Iterable[nn.Module], decoder: Iterable[nn.Module]):
        super().__init__()
        self.position = position
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(decoder)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Projected tokens (B, N, E) -> decoded tokens (B, N, E)."""
        position = self.position()  # (N, E)
        for layer in self.encoder:
            x = layer(x, position)
        encoded = previous = x
        for layer in self.decoder:
            previous = layer(previous, encoded, position)
        return self.norm(previous)
