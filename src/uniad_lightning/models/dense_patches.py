"""Square patches all over an image, and a map of what is said of each of them (CutPaste, Patch-SVDD)."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from uniad_lightning.errors import InputError
from uniad_lightning.types import Size

_SIGMA = 0.25  # deviation of the Gaussian over a patch, of its side


class DensePatches:
    """Patches of `size` pixels, `stride` pixels apart, that cover an image from edge to edge."""

    def __init__(self, *, size: int, stride: int):
        self.size, self.stride = size, stride

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image that is smaller than a patch, or has a rest that none covers."""
        given = f"data.image_size={list(image_size)}"
        if min(image_size) < self.size:
            raise InputError(f"model.patch={self.size}: exceeds {given}; lower it, or enlarge the images")
        if self.stride > self.size or any((side - self.size) % self.stride for side in image_size):
            raise InputError(
                f"model.stride={self.stride}: patches of {self.size} pixels do not cover {given}; expected a stride "
                f"that divides the sides less {self.size}"
            )

    def rows(self, image: Tensor, stride: int | None = None) -> Iterator[Tensor]:
        """The patches of images (B, 3, H, W) row by row, (B, w, 3, size, size) each; at another `stride` if given."""
        stride = self.stride if stride is None else stride
        for top in range(0, image.shape[2] - self.size + 1, stride):
            columns = image[:, :, top : top + self.size].unfold(3, self.size, stride)  # (B, 3, size, w, size)
            yield columns.permute(0, 3, 1, 2, 4)

    def spread(self, scores: Tensor) -> Tensor:
        """Scores (B, h, w) -> at each pixel the mean of those of the patches that cover it, (B, H, W).

        Patches whose middle is near count more, by a Gaussian of a quarter of their side (receptive field upsampling,
        Liznerski et al. 2021; its deviation for patches is ours).
        """
        offsets = torch.arange(self.size, dtype=scores.dtype, device=scores.device) - (self.size - 1) / 2
        line = torch.exp(-(offsets / (_SIGMA * self.size)).square() / 2)
        return spread(scores, line[:, None] * line, self.stride)


def spread(scores: Tensor, window: Tensor, stride: int) -> Tensor:
    """Scores (B, h, w) of patches -> at each pixel the mean of those that cover it, weighted by `window` (K, K)."""
    summed = F.conv_transpose2d(scores[:, None], window[None, None], stride=stride)
    weights = F.conv_transpose2d(torch.ones_like(scores[:1, None]), window[None, None], stride=stride)
    return (summed / weights)[:, 0]
