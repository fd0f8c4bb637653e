"""The CNN baseline of Fig. 2 (appendix B.1): ResNet-34 without its stem, one size of feature map throughout.

Where the paper is silent, a stage is what it is in ResNet-34: 3, 4, 6 and 3 basic blocks, and a 1x1 convolution with
batch norm on the shortcut where the number of channels changes. Convolutions start xavier-uniform like everything
else, as in the reference's initialiser.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_counts, start_weights
from uniad_lightning.types import pair

BLOCKS = (3, 4, 6, 3)  # of ResNet-34's stages


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, stride 1 (He et al. 2016): (B, C_in, h, w) -> (B, C_out, h, w)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if in_channels != out_channels:
            self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1, bias=False))
            self.shortcut.append(nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, h, w) -> (B, C_out, h, w)."""
        out = self.norm1(self.conv1(x)).relu()
        return (self.norm2(self.conv2(out)) + self.shortcut(x)).relu()


class CNN(nn.Module):
    """Feature tokens (B, N, C) -> their reconstruction (B, N, C), tokens in row-major order.

    `channels` is C, `grid` the (height, width) with N = height x width, `hidden_dim` the E of the stages' channels E,
    E/2, E/2 and E. 1x1 convolutions reduce C to E and recover it (appendix B.3).

    Raises InputError for sizes that do not fit each other.
    """

    def __init__(self, *, channels: int, grid: Sequence[int], hidden_dim: int):
        super().__init__()
        self.grid = pair(grid, "model.grid")
        check_counts({"hidden_dim": hidden_dim})
        if hidden_dim % 2:
            raise InputError(f"model.hidden_dim={hidden_dim} is odd; the CNN's middle stages need half of it")
        self.input_proj = nn.Conv2d(channels, hidden_dim, 1)
        self.stages = nn.Sequential()
        half, width = hidden_dim // 2, hidden_dim
        for blocks, out_channels in zip(BLOCKS, (hidden_dim, half, half, hidden_dim), strict=True):
            inputs = [width, *[out_channels] * (blocks - 1)]
            self.stages.append(nn.Sequential(*(BasicBlock(one, out_channels) for one in inputs)))
            width = out_channels
        self.output_proj = nn.Conv2d(hidden_dim, channels, 1)
        start_weights(self)
        self.to(memory_format=torch.channels_last)  # the layout of tokens as a map; several times faster on a CPU

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = tokens.unflatten(1, self.grid).permute(0, 3, 1, 2)  # (B, C, h, w)
        x = self.output_proj(self.stages(self.input_proj(x)))  # (B, C, h, w)
        return x.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
