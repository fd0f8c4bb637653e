"""The transformer of UniAD: neighbor masked encoder and layer-wise query decoder (Sec. 3.2, Fig. 3).

Read top down: position embedding, attention, feed-forward network, encoder layer, decoder layer. Post-norm, as in the
reference implementation (github.com/zhiyuanyou/UniAD). Shapes: B images, N = h*w tokens in row-major order, E width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.dropout import Dropout, attend
from uniad_lightning.types import Size


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

    `blocked` is the (N, N) bool mask, True = may not look, or None for full attention. The projection of query, key
    and value is one packed (3E, E) weight with `nn.MultiheadAttention`'s initialisation.
    """

    visible: Tensor | None

    def __init__(self, *, dim: int, num_heads: int, dropout: float, blocked: Tensor | None):
        super().__init__()
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
        """What `query` (B, N, E) or (1, N, E) gathers from `source` (B, N, E); `position` is (N, E); -> (B, N, E)."""
        (wq, wk, wv), (bq, bk, bv) = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q = self._heads(F.linear(query + position, wq, bq))  # (B or 1, heads, N, E/heads)
        k = self._heads(F.linear(source + position, wk, bk))  # (B, heads, N, E/heads)
        v = self._heads(F.linear(source, wv, bv))  # (B, heads, N, E/heads)
        dropout = self.dropout if self.training else 0.0
        gathered = attend(q.expand_as(k), k, v, visible=self.visible, dropout=dropout)  # (B, heads, N, E/heads)
        return self.out_proj(gathered.transpose(1, 2).flatten(2))  # (B, N, E)


class FeedForward(nn.Sequential):
    """Two linear layers with a ReLU between them (Table A1): (B, N, E) -> (B, N, E)."""

    def __init__(self, *, dim: int, hidden_dim: int, dropout: float):
        super().__init__(nn.Linear(dim, hidden_dim), nn.ReLU(), Dropout(dropout), nn.Linear(hidden_dim, dim))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward network, each with residual and LayerNorm."""

    def __init__(self, *, dim: int, num_heads: int, feedforward_dim: int, dropout: float, blocked: Tensor | None):
        super().__init__()
        self.attention = Attention(dim=dim, num_heads=num_heads, dropout=dropout, blocked=blocked)
        self.attention_norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden_dim=feedforward_dim, dropout=dropout)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, x, position)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class DecoderLayer(nn.Module):
    """One layer of the layer-wise query decoder: its own learned queries look twice (Sec. 3.2, design (a) of Fig. A1).

    First at the encoder's output, then, as what they have become, at the previous layer's output.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        dim: int,
        num_heads: int,
        feedforward_dim: int,
        dropout: float,
        blocked_encoded: Tensor | None,
        blocked_previous: Tensor | None,
    ):
        super().__init__()
        self.query = nn.Parameter(torch.randn(num_tokens, dim))
        self.encoded_attention = Attention(dim=dim, num_heads=num_heads, dropout=dropout, blocked=blocked_encoded)
        self.encoded_norm = nn.LayerNorm(dim)
        self.previous_attention = Attention(dim=dim, num_heads=num_heads, dropout=dropout, blocked=blocked_previous)
        self.previous_norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden_dim=feedforward_dim, dropout=dropout)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, previous: Tensor, encoded: Tensor, position: Tensor) -> Tensor:
        """The previous layer's output and the encoder's output, both (B, N, E) -> (B, N, E)."""
        query = self.query[None]  # (1, N, E): the same for every image, so projected once
        x = self.encoded_norm(query + self.dropout(self.encoded_attention(query, encoded, position)))
        x = self.previous_norm(x + self.dropout(self.previous_attention(x, previous, position)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class Transformer(nn.Module):
    """Encoder and decoder over one grid: (B, N, E) -> (B, N, E).

    `masked` says which of the three attentions use the neighbor mask `blocked` (N, N): the encoder's, the decoder's
    first (on the encoder's output), the decoder's second (on the previous layer's output).
    """

    def __init__(
        self,
        *,
        grid: Size,
        dim: int,
        num_heads: int,
        feedforward_dim: int,
        num_encoder_layers: int,
        num_decoder_layers: int,
        dropout: float,
        blocked: Tensor,
        masked: Sequence[bool],
        shared_queries: bool,
    ):
        super().__init__()
        encoder_mask, encoded_mask, previous_mask = (blocked if on else None for on in masked)
        sizes: dict[str, Any] = {
            "dim": dim,
            "num_heads": num_heads,
            "feedforward_dim": feedforward_dim,
            "dropout": dropout,
        }
        self.position = PositionEmbedding(grid=grid, dim=dim)
        self.encoder = nn.ModuleList(EncoderLayer(**sizes, blocked=encoder_mask) for _ in range(num_encoder_layers))
        self.decoder = nn.ModuleList(
            DecoderLayer(**sizes, num_tokens=len(blocked), blocked_encoded=encoded_mask, blocked_previous=previous_mask)
            for _ in range(num_decoder_layers)
        )
        self.norm = nn.LayerNorm(dim)
        if shared_queries:
            self._start_layers_alike()

    @torch.no_grad()
    def _start_layers_alike(self) -> None:
        """Give all layers of a stack the first one's queries and packed projections, as the reference's clones have."""
        for stack in (self.encoder, self.decoder):
            for layer in stack[1:]:
                for name, parameter in layer.named_parameters():
                    if name == "query" or name.endswith("in_proj_weight"):
                        parameter.copy_(stack[0].get_parameter(name))

    def forward(self, x: Tensor) -> Tensor:
        """Projected tokens (B, N, E) -> decoded tokens (B, N, E)."""
        position = self.position()  # (N, E)
        for layer in self.encoder:
            x = layer(x, position)
        encoded = previous = x
        for layer in self.decoder:
            previous = layer(previous, encoded, position)
        return self.norm(previous)
