"""From features to scores: the anomaly map (Eq. 5), its upsampling, and one score for an image (Sec. 3.3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.types import Size


def upsample(maps: Tensor, size: Size) -> Tensor:
    """Anomaly maps (B, h, w) at `size`, bilinear with aligned corners (the reference's `UpsamplingBilinear2d`)."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return F.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=True)[:, 0]  # (B, H, W)


def check_reach(sigma: float, size: Size) -> int:
    """How many pixels a Gaussian of `sigma` reaches; InputError where that is more than a map of `size` has."""
    radius = int(4 * sigma + 0.5)
    if min(size) < radius:
        raise InputError(f"model.sigma={sigma}: reaches {radius} pixels, more than the map {tuple(size)} has; lower it")
    return radius


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Maps (B, H, W) convolved with a Gaussian of `sigma` pixels, cut off at 4 of them, the edges mirrored.

    The same as `scipy.ndimage.gaussian_filter`; 0 changes nothing. Raises InputError for maps smaller than the cut.
    """
    radius = check_reach(sigma, (maps.shape[1], maps.shape[2]))
    if not radius:
        return maps
    if min(maps.shape[1:]) < radius:
        raise InputError(
            f"model.sigma={sigma}: reaches {radius} pixels, more than the map {tuple(maps.shape[1:])} has; lower it"
        )
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    weights = torch.exp(-offsets.square() / (2 * sigma * sigma))
    weights = weights / weights.sum()
    for dim in (1, 2):
        moved = maps.movedim(dim, 2)
        edges = [moved[..., :radius].flip(2), moved, moved[..., -radius:].flip(2)]
        rows = torch.cat(edges, dim=2).flatten(0, 1)[:, None]  # (B * H, 1, W + 2r)
        maps = F.conv1d(rows, weights[None, None])[:, 0].view(moved.shape).movedim(2, dim)
    return maps


class ImageScore(nn.Module):
    """One number for an image from its upsampled anomaly map: (B, H, W) -> (B,).

    `kind` is `max` (maximum of the map averaged over every window x window square; MVTec-AD, Sec. 3.3), `mean`
    (CIFAR-10 in the reference) or `std`. `window` is in pixels and used by `max` alone.

    Raises InputError for an unknown kind and for a window below 1; `check` raises it for an image that is too small.
    """

    KINDS = ("max", "mean", "std")

    def __init__(self, *, kind: str, window: int):
        super().__init__()
        if kind not in self.KINDS:
            known = ", ".join(self.KINDS)
            raise InputError(
                f"score.kind={kind!r} is unknown; expected one of {known}.{did_you_mean(kind, self.KINDS)}"
            )
        if window < 1:
            raise InputError(f"score.window={window}: expected at least 1 pixel")
        self.kind = kind
        self.window = window

    def check(self, size: Size) -> None:
        """Raises InputError when an image of `size` is smaller than the pooling window."""
        if self.kind == "max" and min(size) < self.window:
            raise InputError(
                f"data.image_size={list(size)} is smaller than the pooling window of the image score, "
                f"score.window={self.window}; enlarge the image or lower score.window"
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Scores (B,), larger = more anomalous, of maps (B, H, W)."""
        if self.kind == "max":
            return F.avg_pool2d(maps[:, None], self.window, stride=1).amax(dim=(1, 2, 3))  # (B,)
        if self.kind == "mean":
            return maps.mean(dim=(1, 2))  # (B,)
        return torch.std(maps, dim=(1, 2), correction=0)  # (B,)
