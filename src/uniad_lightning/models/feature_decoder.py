"""The decoder that renders features as images, a reversed ResNet-34 (appendix B.3); for display alone.

Where the paper is silent: its stages are ResNet-34's from the last to the first, of 3, 6, 4 and 3 basic blocks. A
transposed convolution after each stage and at the end replaces a step in which ResNet-34 halves the image. Of these
five steps only as many as lead from the grid to the image double the size, the last ones. (The reference enlarges by
interpolation.)
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.cnn import BLOCKS, BasicBlock
from uniad_lightning.types import Size, pair

MULTIPLES = (8, 4, 2, 1)  # of the width: 512, 256, 128 and 64 channels
STEPS = 5  # in which ResNet-34 halves an image


class Enlarge(nn.Module):
    """A transposed convolution with batch norm: (B, C_in, h, w) -> (B, C_out, *size), `size` up to `stride` times h, w.

    Its kernel is 3x3 for stride 1 and 4x4 for stride 2, which 2 divides: all pixels get as many terms.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, size: Size):
        super().__init__()
        self.height, self.width = size
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2 + stride, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, *size)."""
        return self.norm(self.conv(x)[..., : self.height, : self.width]).relu()


class FeatureDecoder(nn.Module):
    """Features (B, C, h, w) of a backbone -> normalised images (B, 3, H, W), of no bounded range.

    `channels` is C, `grid` the (h, w) and `image_size` the (H, W), whatever their ratio; `width` is the number of
    channels of the last stage, 64 in ResNet-34. Channels are normalised to zero mean and unit deviation first.

    Raises InputError for invalid sizes.
    """

    def __init__(self, *, channels: int, grid: Sequence[int], image_size: int | Sequence[int], width: int):
        super().__init__()
        if not isinstance(width, int) or width < 1:
            raise InputError(f"decoder.width={width}: expected a whole number of at least 1, such as 64")
        (h, w), self.image_size = pair(grid, "model.grid"), pair(image_size, "data.image_size")
        doublings = min(max(round(math.log2(math.prod(self.image_size) / (h * w)) / 2), 0), STEPS)
        # The sizes that ResNet-34 gives the image before each of its steps.
        self.start, *sizes = (self._halved(min(doublings, STEPS - step)) for step in range(STEPS + 1))
        strides = [2 if STEPS - step <= doublings else 1 for step in range(STEPS)]
        # The features do not change while the decoder learns, so their statistics are those of all batches.
        self.norm = nn.BatchNorm2d(channels, affine=False, momentum=None)
        self.stages = nn.Sequential()
        inputs = channels
        for step, (blocks, multiple) in enumerate(zip(reversed(BLOCKS), MULTIPLES, strict=True)):
            outputs, following = multiple * width, max(multiple // 2, 1) * width
            self.stages.append(
                nn.Sequential(
                    *(BasicBlock(outputs if block else inputs, outputs) for block in range(blocks)),
                    Enlarge(outputs, following, stride=strides[step], size=sizes[step]),
                )
            )
            inputs = following
        self.paint = nn.ConvTranspose2d(width, 3, 6 + strides[-1], stride=strides[-1], padding=3)
        for block in self.modules():
            if isinstance(block, BasicBlock):
                nn.init.zeros_(block.norm2.weight)  # each block starts as its shortcut; trains in half the steps
        self.to(memory_format=torch.channels_last)  # several times faster on a CPU

    def _halved(self, times: int) -> Size:
        height, width = (-(-side // 2**times) for side in self.image_size)  # rounded up, as in a convolution
        return height, width

    def forward(self, feature: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W)."""
        if tuple(feature.shape[-2:]) != self.start:  # as the backbone resized its levels to the grid
            feature = F.interpolate(feature, size=self.start, mode="bilinear", align_corners=True)
        x = self.stages(self.norm(feature.contiguous(memory_format=torch.channels_last)))  # (B, width, H/2, W/2)
        return self.paint(x)[..., : self.image_size[0], : self.image_size[1]]  # (B, 3, H, W)
