"""The transformer of UniAD: neighbor masked encoder and layer-wise query decoder (Sec. 3.2, Fig. 3).

Read top down: position embedding, attention, feed-forward network, encoder layer, decoder layer. Post-norm, as in the
reference implementation (github.com/zhiyuanyou/UniAD). Shapes: B images, N = h*w tokens in row-major order, E width.
The other decoders that the paper compares are rows of the table in `decoders`.
"""

from collections.abc import Callable, Sequence
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.models.layers.decoder_designs import DECODERS, Inputs
from uniad_lightning.models.layers.dropout import Dropout, attend
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
    """Self-attention and feed-forward network, each with residual and LayerNorm.

    `attention(query, source, position)` is an `Attention`, or what is in its place.
    """

    def __init__(self, *, attention: nn.Module, dim: int, feedforward_dim: int, dropout: float):
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden_dim=feedforward_dim, dropout=dropout)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """(B, N, E) -> (B, N, E)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, x, position)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class DecoderLayer(nn.Module):
    """Two attentions and a feed-forward network, each with residual, for an attention its query's, and LayerNorm.

    `inputs` says what the two take, as in `decoders`. In the layer-wise query decoder (Sec. 3.2) the layer's own
    learned `queries` (N, E) look first at the encoder's output, then, as what they have become, at the previous layer's
    output; the attentions are named after that, whatever the inputs.
    """

    def __init__(
        self,
        *,
        inputs: tuple[Inputs, Inputs],
        queries: Tensor | None,
        attentions: tuple[nn.Module, nn.Module],
        dim: int,
        feedforward_dim: int,
        dropout: float,
    ):
        super().__init__()
        self.inputs = inputs
        self.query = None if queries is None else nn.Parameter(queries)
        self.encoded_attention = attentions[0]
        self.encoded_norm = nn.LayerNorm(dim)
        self.previous_attention = attentions[1]
        self.previous_norm = nn.LayerNorm(dim)
        self.feedforward = FeedForward(dim=dim, hidden_dim=feedforward_dim, dropout=dropout)
        self.feedforward_norm = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def forward(self, previous: Tensor, encoded: Tensor, position: Tensor) -> Tensor:
        """The previous layer's output and the encoder's output, both (B, N, E) -> (B, N, E)."""
        tokens = {"previous": previous, "encoded": encoded}
        if self.query is not None:
            learned = self.query[None]  # (1, N, E): the same for every image, so projected once
            # Where they look at each other, each image has dropout of its own.
            tokens["learned"] = learned.expand_as(encoded) if ("learned", "learned") in self.inputs else learned
        (query, source), (second_query, second_source) = self.inputs
        x = self.encoded_attention(tokens[query], tokens[source], position)  # (B, N, E)
        tokens["found"] = self.encoded_norm(tokens[query] + self.dropout(x))
        x = self.previous_attention(tokens[second_query], tokens[second_source], position)  # (B, N, E)
        x = self.previous_norm(tokens[second_query] + self.dropout(x))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class Transformer(nn.Module):
    """Encoder and decoder over one grid of N = `num_tokens`: (B, N, E) -> (B, N, E).

    `position()` gives the positions (N, E). `attentions` make the attention of an encoder layer and the first and the
    second one of a decoder layer. `decoder` is a row of `DECODERS`; `shared_queries` starts all layers of a stack from
    the same queries and projections. Without decoder layers the encoder's output is the result (4+0 in Table 5b),
    without encoder layers the decoder looks at the input (0+4); the closing LayerNorm is there in any case (R).

    Raises InputError for an unknown decoder.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        dim: int,
        position: nn.Module,
        attentions: Sequence[Callable[[], nn.Module]],
        feedforward_dim: int,
        num_encoder_layers: int,
        num_decoder_layers: int,
        dropout: float,
        decoder: str,
        shared_queries: bool,
    ):
        super().__init__()
        if not isinstance(decoder, str) or decoder not in DECODERS:
            raise InputError(
                f"model.decoder={decoder!r} is unknown; expected one of {', '.join(DECODERS)}."
                f"{did_you_mean(str(decoder), DECODERS)}"
            )
        encoder_attention, first_attention, second_attention = attentions
        self.position = position
        self.encoder = nn.ModuleList(
            EncoderLayer(attention=encoder_attention(), dim=dim, feedforward_dim=feedforward_dim, dropout=dropout)
            for _ in range(num_encoder_layers)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(
                inputs=inputs,
                queries=torch.randn(num_tokens, dim) if "learned" in chain(*inputs) else None,
                attentions=(first_attention(), second_attention()),
                dim=dim,
                feedforward_dim=feedforward_dim,
                dropout=dropout,
            )
            for inputs in map(DECODERS[decoder].layer, range(num_decoder_layers))
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
