"""From a coarse map to the image: each cell spread over the pixels that it has seen, the middle most (FCDD)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from uniad_lightning.errors import InputError
from uniad_lightning.types import Size


def stride_of(image_size: Size, grid: Size) -> int:
    """Pixels from one cell of `grid` to the next; InputError where that is no whole number, or differs between axes."""
    strides = {size / cells for size, cells in zip(image_size, grid, strict=True)}
    stride = strides.pop()
    if strides or stride != int(stride):
        raise InputError(
            f"model.grid={list(grid)}: does not divide data.image_size={list(image_size)} alike along both axes; give "
            "the grid of the backbone's features, such as [28, 28] for 224 pixels and a stride of 8"
        )
    return int(stride)


def spread(maps: Tensor, *, stride: int, field: int, sigma: float) -> Tensor:
    """Maps (B, h, w) -> (B, h * stride, w * stride): a transposed convolution with a Gaussian of `sigma` pixels.

    The Gaussian is cut off at `field` pixels, the side of the receptive field, and keeps the mean of a map but for its
    edges. Its peak lies in the middle of the cell's pixels, which is the middle of its receptive field (Liznerski et
    al. 2021).
    """
    reach = max((field - stride) // 2, 0)  # pixels beyond the cell's own
    width = stride + 2 * reach
    offsets = torch.arange(width, dtype=maps.dtype, device=maps.device) - (width - 1) / 2
    line = torch.exp(-offsets.square() / (2 * sigma * sigma))
    line = stride * line / line.sum()
    window = line[:, None] * line[None]
    return F.conv_transpose2d(maps[:, None], window[None, None], stride=stride, padding=reach)[:, 0]
