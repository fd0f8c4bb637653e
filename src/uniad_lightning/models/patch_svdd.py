"""Patch-SVDD's networks (Yi and Yoon 2020, arXiv 2006.16067): an encoder of patches of two sizes, and of directions.

A patch of 64 pixels is described by what the encoder of 32 pixels says of its four quarters. Nothing is
padded, so that a patch has the same embedding wherever it lies in an image, and all of an image are computed at once.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.models.initialization import check_counts

SIZES = (64, 32)  # pixels of the sides of patches
_SLOPE = 0.1  # of the leaky ReLUs
_STEP = 2  # pixels between the patches that the small encoder sees in an image: the stride of its first layer
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))  # (down, right)


class HierarchicalEncoder(nn.Module):
    """Embeddings of `dim` numbers in [-1, 1] of patches of 64 and of 32 pixels, as `SIZES` has them.

    The layers have `width`, 2, 4, 4, 2, 1 and 1 times `width`, and `dim` channels; 32 and 64 are the paper's. Raises
    InputError for sizes below 1.
    """

    def __init__(self, *, dim: int, width: int):
        super().__init__()
        check_counts({"dim": dim, "width": width})
        channels = [3, *(factor * width for factor in (1, 2, 4, 4, 2, 1, 1)), dim]
        self.small = nn.Sequential()
        for place, (inputs, outputs) in enumerate(zip(channels[:-1], channels[1:], strict=True)):
            self.small.append(nn.Conv2d(inputs, outputs, 3, stride=1 if place else _STEP))
            self.small.append(nn.LeakyReLU(_SLOPE) if place < len(channels) - 2 else nn.Tanh())
        self.join = nn.Conv2d(dim, 2 * dim, 2)
        self.last = nn.Conv2d(2 * dim, dim, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # By torch's own start the last layers hardly tell patches apart, and differences round away.
                nn.init.kaiming_normal_(module.weight, a=_SLOPE)
                nn.init.zeros_(cast(Tensor, module.bias))

    def embed(self, patches: Tensor) -> Tensor:
        """Patches (n, 3, K, K) of 64 or 32 pixels -> their embeddings (n, D)."""
        if patches.shape[-1] == SIZES[1]:
            return self.small(patches).flatten(1)
        half = SIZES[1]
        quarters = patches.unflatten(3, (2, half)).unflatten(2, (2, half))  # (n, 3, 2, 32, 2, 32)
        quarters = quarters.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # (4 n, 3, 32, 32)
        found = self.small(quarters).flatten(1).unflatten(0, (-1, 2, 2)).permute(0, 3, 1, 2)  # (n, D, 2, 2)
        return self._whole(self.join(found)).flatten(1)

    def forward(self, images: Tensor, strides: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> embeddings (B, D, h, w) of their patches of 64 and of 32 pixels at these even strides.

        The first patch lies in the upper left corner; `h` is (H - K) // stride + 1.
        """
        dense = self.small(images)  # every second pixel
        far, step = SIZES[1] // _STEP, strides[0] // _STEP
        joined = F.conv2d(dense, self.join.weight, self.join.bias, stride=step, dilation=far)
        every = strides[1] // _STEP
        return self._whole(joined), dense[:, :, ::every, ::every]

    def _whole(self, joined: Tensor) -> Tensor:
        return torch.tanh(self.last(F.leaky_relu(joined, _SLOPE)))


class DirectionClassifier(nn.Sequential):
    """The difference of the embeddings (n, D) of two patches -> scores (n, 8) of where the second lies."""

    def __init__(self, *, dim: int):
        hidden = 2 * dim
        super().__init__(
            nn.Linear(dim, hidden), nn.LeakyReLU(_SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(_SLOPE),
            nn.Linear(hidden, len(DIRECTIONS)),
        )  # fmt: skip


def cut(images: Tensor, corners: Tensor, size: int) -> Tensor:
    """Squares of `size` pixels (B, P, 3, size, size) of images (B, 3, H, W), their upper left `corners` (B, P, 2)."""
    steps = torch.arange(size, device=images.device)
    rows, columns = (corners[..., axis, None] + steps for axis in (0, 1))  # (B, P, size)
    which = torch.arange(len(images), device=images.device)[:, None, None, None]
    pixels = images.permute(0, 2, 3, 1)  # (B, H, W, 3)
    return pixels[which, rows[..., :, None], columns[..., None, :]].permute(0, 1, 4, 2, 3)


def neighbors(uniform: Tensor, image_size: tuple[int, int], size: int) -> tuple[Tensor, Tensor]:
    """Corners (..., 2, 2) of pairs of neighbouring patches, and the direction (...,) of the second from the first.

    `uniform` (..., 5) are numbers from [0, 1). A neighbour is three quarters of a patch to a whole one away along each
    axis of its direction; a pair lies anywhere in the image.
    """
    direction = _whole_numbers(uniform[..., 0], len(DIRECTIONS))
    signs = torch.tensor(DIRECTIONS, device=uniform.device)[direction]  # (..., 2)
    offset = signs * (3 * size // 4 + _whole_numbers(uniform[..., 1:3], size // 4 + 1))
    return _placed(offset, uniform[..., 3:5], image_size, size), direction


def shifted(uniform: Tensor, image_size: tuple[int, int], size: int) -> Tensor:
    """Corners (..., 2, 2) of pairs of patches that are up to a 32nd of a patch apart along each axis, never the same.

    `uniform` (..., 3) are numbers from [0, 1).
    """
    most = size // 32
    side = 2 * most + 1
    place = _whole_numbers(uniform[..., 0], side * side - 1)
    place = place + (place >= side * most + most).long()  # leaves out (0, 0)
    offset = torch.stack([place // side - most, place % side - most], dim=-1)
    return _placed(offset, uniform[..., 1:3], image_size, size)


def _placed(offset: Tensor, uniform: Tensor, image_size: tuple[int, int], size: int) -> Tensor:
    """Corners of a patch and of one at `offset` (..., 2) from it, both within the image."""
    free = torch.tensor(image_size, device=offset.device) - size - offset.abs() + 1
    first = _whole_numbers(uniform, free) + (-offset).clamp_min(0)
    return torch.stack([first, first + offset], dim=-2)


def _whole_numbers(uniform: Tensor, count: Tensor | int) -> Tensor:
    """Whole numbers from 0 to below `count`, of numbers from [0, 1)."""
    return torch.minimum((uniform * count).long(), torch.as_tensor(count, device=uniform.device) - 1)
