"""Structural similarity (Wang et al. 2004): how alike two images are in every small window."""

import torch
import torch.nn.functional as F
from torch import Tensor

_BRIGHTNESS, _CONTRAST = 0.01, 0.03  # Wang et al. Sec. III: K1 and K2, of a range of values of 1


def ssim(first: Tensor, second: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Similarity map (B, C, H, W) in [-1, 1] of two images (B, C, H, W) of values from 0 to 1; 1 where they are equal.

    Eq. 13 of Wang et al. with a Gaussian window of `window` pixels and deviation `sigma`; beyond the edges are zeros.
    """
    weights = _window(window, sigma, first)
    mean_a, mean_b = _mean(first, weights), _mean(second, weights)
    variance_a = _mean(first.square(), weights) - mean_a.square()
    variance_b = _mean(second.square(), weights) - mean_b.square()
    covariance = _mean(first * second, weights) - mean_a * mean_b
    c1, c2 = _BRIGHTNESS**2, _CONTRAST**2
    alike = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return alike / ((mean_a.square() + mean_b.square() + c1) * (variance_a + variance_b + c2))


def _window(window: int, sigma: float, like: Tensor) -> Tensor:
    offsets = torch.arange(window, dtype=like.dtype, device=like.device) - (window - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * sigma * sigma))
    return weights / weights.sum()


def _mean(image: Tensor, weights: Tensor) -> Tensor:
    """Weighted means around each pixel; the window is a product of a row and a column."""
    channels, size = image.shape[1], len(weights)
    row = weights.view(1, 1, 1, size).expand(channels, 1, 1, size)
    across = F.conv2d(image, row, padding=(0, size // 2), groups=channels)
    return F.conv2d(across, row.transpose(2, 3), padding=(size // 2, 0), groups=channels)
