"""Multi-scale gradient magnitude similarity: how alike the edges of two images are (Xue et al. 2014, arXiv 1308.3052).

Of the mean over channels, at up to four scales, each half the one before (Zavrtanik et al. 2021, RIAD).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_SCALES = 4
_LEAST = 3  # pixels of the smallest scale: of the filter
_CONSTANT = 170 / 255**2  # Xue et al. Sec. II: 170 for values up to 255
# Below the root, whose slope has to be finite where an image is flat; the exporter takes 1e-8 for 0 and drops it.
_TINY = 1e-6


def gradient_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Similarity maps (B, H, W) in (0, 1] of two images (B, C, H, W) of values from 0 to 1; 1 where they are equal.

    The mean over scales; scales of less than 3 pixels are left out, and so is the rest of a side that is odd.
    """
    size = first.shape[-2:]
    pair = torch.cat([first.mean(dim=1, keepdim=True), second.mean(dim=1, keepdim=True)], dim=1)  # (B, 2, H, W)
    maps = []
    for _ in range(_SCALES):
        a, b = gradient_magnitude(pair).unbind(dim=1)  # (B, h, w) each
        similar = (2 * a * b + _CONSTANT) / (a.square() + b.square() + _CONSTANT)
        maps.append(F.interpolate(similar[:, None], size=size, mode="bilinear", align_corners=False)[:, 0])
        if min(pair.shape[-2:]) // 2 < _LEAST:
            break
        pair = F.avg_pool2d(pair, 2)
    return torch.stack(maps).mean(dim=0)


def gradient_magnitude(image: Tensor) -> Tensor:
    """Lengths of the gradients by Prewitt's filters, (B, C, H, W) of the same size; edges are repeated beyond."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 2:] - padded[..., :-2]  # (B, C, H + 2, W)
    down = padded[..., 2:, :] - padded[..., :-2, :]  # (B, C, H, W + 2)
    across = (across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]) / 3
    down = (down[..., :-2] + down[..., 1:-1] + down[..., 2:]) / 3
    return (across.square() + down.square() + _TINY).sqrt()
