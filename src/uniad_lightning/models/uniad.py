"""UniAD's reconstruction network: jitter, channel reduction, transformer, channel recovery (Fig. 3, appendix B.3)."""

from collections.abc import Sequence

from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.jitter import FeatureJitter
from uniad_lightning.models.neighbor_mask import neighbor_mask
from uniad_lightning.models.transformer import Transformer
from uniad_lightning.types import pair


class UniAD(nn.Module):
    """Feature tokens (B, N, C) -> their reconstruction (B, N, C), tokens in row-major order.

    `channels` is C, `grid` the (height, width) with N = height x width, `neighbor_size` the (height, width) of the
    masked window in cells, `masked` the three attentions it applies to: encoder, decoder on the encoder's output,
    decoder on the previous layer's output. Linear weights start xavier-uniform, biases 0 (reference).

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
        neighbor_size: int | Sequence[int],
        masked: Sequence[bool],
        jitter: FeatureJitter,
        shared_queries: bool = False,
    ):
        super().__init__()
        self.grid = pair(grid, "model.grid")
        if len(masked) != 3 or not all(isinstance(one, bool) for one in masked):
            raise InputError(
                f"model.masked={list(masked)}: expected three of true or false: "
                "encoder, decoder on the encoder's output, decoder on the previous layer's output"
            )
        for name, value, least in (
            ("hidden_dim", hidden_dim, 2),
            ("num_heads", num_heads, 1),
            ("feedforward_dim", feedforward_dim, 1),
            ("num_encoder_layers", num_encoder_layers, 0),
            ("num_decoder_layers", num_decoder_layers, 1),
        ):
            if not isinstance(value, int) or value < least:
                raise InputError(f"model.{name}={value}: expected a whole number of at least {least}")
        if not isinstance(dropout, float | int) or not 0 <= dropout < 1:
            raise InputError(f"model.dropout={dropout}: expected a number from 0 to below 1")
        self.jitter = jitter
        self.input_proj = nn.Linear(channels, hidden_dim)
        self.transformer = Transformer(
            grid=self.grid,
            dim=hidden_dim,
            num_heads=num_heads,
            feedforward_dim=feedforward_dim,
            num_encoder_layers=num_encoder_layers,
            num_decoder_layers=num_decoder_layers,
            dropout=dropout,
            blocked=neighbor_mask(self.grid, pair(neighbor_size, "model.neighbor_size")),
            masked=masked,
            shared_queries=shared_queries,
        )
        self.output_proj = nn.Linear(hidden_dim, channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C); the jitter acts in training mode only."""
        x = self.input_proj(self.jitter(tokens))  # (B, N, E)
        return self.output_proj(self.transformer(x))  # (B, N, C)
