"""Feature jittering (Sec. 3.2, Eq. 3): the network learns to undo noise on its input."""

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.randomness import draw


class FeatureJitter(nn.Module):
    """Adds Gaussian noise of deviation scale x |token| / C to tokens (B, N, C), in training mode only.

    With probability `prob` the noise is added, decided once `per: batch` (reference) or once `per: token` (as the
    paper puts it). `scale` 0 turns it off.

    Raises InputError for a negative scale, a probability outside [0, 1] and an unknown `per`.
    """

    def __init__(self, *, scale: float, prob: float, per: str):
        super().__init__()
        if scale < 0:
            raise InputError(f"model.jitter.scale={scale} is negative; expected 0 (off) or more, 20 in the paper")
        if not 0 <= prob <= 1:
            raise InputError(f"model.jitter.prob={prob} is no probability; expected a number from 0 to 1")
        if per not in ("batch", "token"):
            raise InputError(
                f"model.jitter.per={per!r} is unknown; expected batch or token.{did_you_mean(per, ('batch', 'token'))}"
            )
        self.scale = scale
        self.prob = prob
        self.per = per

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) -> (B, N, C)."""
        if not self.training or self.scale == 0 or self.prob == 0:
            return tokens
        deviation = self.scale * tokens.norm(dim=-1, keepdim=True) / tokens.shape[-1]  # (B, N, 1)
        if self.per == "token":
            deviation = deviation * (draw(torch.rand, deviation.shape, tokens.device) < self.prob)
        elif torch.rand(()) >= self.prob:
            return tokens
        return tokens + deviation * draw(torch.randn, tokens.shape, tokens.device)
