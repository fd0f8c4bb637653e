"""UniAD's reconstruction network: jitter, channel reduction, transformer, channel recovery (Fig. 3, appendix B.3)."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.ablations.decoders import designed_layers
from uniad_lightning.models.initialization import check_transformer, share_first_layers, start_weights
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.layers.neighbor_mask import neighbor_mask
from uniad_lightning.models.layers.transformer import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    LayerSizes,
    MakeAttention,
    PositionEmbedding,
    Transformer,
)
from uniad_lightning.types import Size, pair

LAYER_WISE = "a"  # the paper's decoder, by its letter in Fig. A1


class UniAD(nn.Module):
    """Feature tokens (B, N, C) -> their reconstruction (B, N, C), tokens in row-major order.

    `channels` is C, `grid` the (height, width) with N = height x width, `neighbor_size` the (height, width) of the
    masked window in cells, `masked` the three attentions it applies to: the encoder's, the decoder's first (by default
    on the encoder's output) and its second (on the previous layer's output). `decoder` is `a`, the layer-wise query
    decoder, or a design of `ablations.decoders`. `shared_queries` starts all layers of encoder and of decoder from the
    same queries and projections, as the reference does.

    Raises InputError for sizes that do not fit each other and an unknown decoder.
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
        neighbor_size: int | Sequence[int],
        masked: Sequence[bool],
        jitter: FeatureJitter,
        decoder: str = "a",
        shared_queries: bool = False,
    ):
        super().__init__()
        self.grid = pair(grid, "model.grid")
        check_transformer(hidden_dim, feedforward_dim, num_encoder_layers, num_decoder_layers, dropout)
        sizes = LayerSizes(self.grid[0] * self.grid[1], hidden_dim, feedforward_dim, dropout)
        attention = partial(Attention, dim=hidden_dim, num_heads=num_heads, dropout=dropout)
        encoder_attention, *decoder_attentions = _attentions(attention, self.grid, neighbor_size, masked)
        self.jitter = jitter
        self.input_proj = nn.Linear(channels, hidden_dim)
        self.transformer = Transformer(
            dim=hidden_dim,
            position=PositionEmbedding(grid=self.grid, dim=hidden_dim),
            encoder=[EncoderLayer(sizes, attention=encoder_attention) for _ in range(num_encoder_layers)],
            decoder=_decoder_layers(decoder, num_decoder_layers, sizes, *decoder_attentions),
        )
        if shared_queries:
            share_first_layers(self.transformer.encoder, self.transformer.decoder)
        self.output_proj = nn.Linear(hidden_dim, channels)
        start_weights(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C); the jitter acts in training mode only."""
        x = self.input_proj(self.jitter(tokens))  # (B, N, E)
        return self.output_proj(self.transformer(x))  # (B, N, C)


def _attentions(
    attention: Callable[..., Attention], grid: Size, neighbor_size: int | Sequence[int], masked: Sequence[bool]
) -> list[MakeAttention]:
    """`attention` of the encoder, and the decoder's first and second, each with the neighbor mask where `masked`."""
    if len(masked) != 3 or not all(isinstance(one, bool) for one in masked):
        raise InputError(
            f"model.masked={list(masked)}: expected three of true or false: "
            "encoder, decoder's first attention, decoder's second attention"
        )
    blocked = neighbor_mask(grid, pair(neighbor_size, "model.neighbor_size"))
    return [partial(attention, blocked=blocked if one else None) for one in masked]


def _decoder_layers(
    decoder: str, count: int, sizes: LayerSizes, first: MakeAttention, second: MakeAttention
) -> list[nn.Module]:
    """The layers of the layer-wise query decoder, or of one that the paper compares with it."""
    if decoder == LAYER_WISE:
        return [DecoderLayer(sizes, encoded_attention=first, previous_attention=second) for _ in range(count)]
    return designed_layers(decoder, count, sizes, attentions=(first, second))
