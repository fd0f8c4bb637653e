"""UniAD's reconstruction network: jitter, channel reduction, transformer, channel recovery (Fig. 3, appendix B.3)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_transformer, start_weights
from uniad_lightning.models.layers.jitter import FeatureJitter
from uniad_lightning.models.layers.neighbor_mask import neighbor_mask
from uniad_lightning.models.layers.transformer import Attention, PositionEmbedding, Transformer
from uniad_lightning.types import pair


class UniAD(nn.Module):
    """Feature tokens (B, N, C) -> their reconstruction (B, N, C), tokens in row-major order.

    `channels` is C, `grid` the (height, width) with N = height x width, `neighbor_size` the (height, width) of the
    masked window in cells, `masked` the three attentions it applies to: the encoder's, the decoder's first (by default
    on the encoder's output) and its second (on the previous layer's output). `decoder` is a row of `DECODERS`.

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
        if len(masked) != 3 or not all(isinstance(one, bool) for one in masked):
            raise InputError(
                f"model.masked={list(masked)}: expected three of true or false: "
                "encoder, decoder's first attention, decoder's second attention"
            )
        check_transformer(
            {"hidden_dim": hidden_dim, "num_heads": num_heads, "feedforward_dim": feedforward_dim},
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            dropout=dropout,
        )
        attention = partial(Attention, dim=hidden_dim, num_heads=num_heads, dropout=dropout)
        blocked = neighbor_mask(self.grid, pair(neighbor_size, "model.neighbor_size"))
        self.jitter = jitter
        self.input_proj = nn.Linear(channels, hidden_dim)
        self.transformer = Transformer(
            num_tokens=self.grid[0] * self.grid[1],
            dim=hidden_dim,
            position=PositionEmbedding(grid=self.grid, dim=hidden_dim),
            attentions=[partial(attention, blocked=blocked if on else None) for on in masked],
            feedforward_dim=feedforward_dim,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            dropout=dropout,
            decoder=decoder,
            shared_queries=shared_queries,
        )
        self.output_proj = nn.Linear(hidden_dim, channels)
        start_weights(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C); the jitter acts in training mode only."""
        x = self.input_proj(self.jitter(tokens))  # (B, N, E)
        return self.output_proj(self.transformer(x))  # (B, N, C)
