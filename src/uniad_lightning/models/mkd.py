"""The networks and distances of MKD (Salehi et al. 2021): a small copy of a backbone, and how far the two are apart."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.errors import InputError

_FIRST_STAGES = 2  # of VGG-16's stages have two convolutions, those after them three


class Cloner(nn.Module):
    """Images (B, 3, H, W) -> features as the teacher's at each of its levels, (B, C_l, H / s_l, W / s_l).

    `channels` and `strides` are those of the levels. Stages of 3x3 convolutions of `width` channels as many as
    VGG-16's, each followed by a 2x2 max pool; the last convolution of a stage that ends in a level has the level's
    channels and, as in the paper's code, no batch norm. With `relu` it ends in a ReLU, for teachers whose levels do.

    Raises InputError for strides that are not ascending powers of 2.
    """

    def __init__(self, *, channels: Sequence[int], strides: Sequence[int], width: int, bias: bool, relu: bool):
        super().__init__()
        check_strides(strides)
        levels = {int(math.log2(stride)): count for stride, count in zip(strides, channels, strict=True)}
        self.stages, self.levels = nn.ModuleList(), sorted(levels)
        before = 3
        for stage in range(1, self.levels[-1] + 1):
            inner = 1 if stage <= _FIRST_STAGES else 2  # convolutions before the last
            layers: list[nn.Module] = []
            for _ in range(inner):
                layers += [nn.Conv2d(before, width, 3, padding=1, bias=bias), nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            last = levels.get(stage, width)
            layers.append(nn.Conv2d(before, last, 3, padding=1, bias=bias))
            layers += [nn.ReLU()] if relu or stage not in levels else []
            self.stages.append(nn.Sequential(*layers, nn.MaxPool2d(2)))
            before = last

    def forward(self, image: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> the levels, shallow first."""
        found = []
        for stage, layers in enumerate(self.stages, 1):
            image = layers(image)
            found += [image] if stage in self.levels else []
        return found


def check_strides(strides: Sequence[int]) -> None:
    """Raises InputError for strides of a teacher's levels that no chain of 2x2 pools has."""
    ascending = all(a < b for a, b in zip(strides, strides[1:], strict=False))
    if not ascending or any(stride < 2 or stride & (stride - 1) for stride in strides):
        raise InputError(
            f"backbone.levels: strides of {list(strides)} after a 2x2 pool; the cloner of model=mkd halves its images, "
            "so expected levels whose strides ascend by powers of 2, such as those of backbone=vgg16 or resnet18"
        )


def level_distances(teacher: Sequence[Tensor], cloner: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """How far the levels (B, C_l, h_l, w_l) of both are apart: 1 - cosine of the flattened level, and the MSE; (B, L).

    The first is in [0, 2], the second at least 0.
    """
    pairs = [(a.flatten(1).float(), b.flatten(1).float()) for a, b in zip(teacher, cloner, strict=True)]
    direction = torch.stack([1 - F.cosine_similarity(a, b, dim=1) for a, b in pairs], dim=1)
    return direction, torch.stack([(a - b).square().mean(dim=1) for a, b in pairs], dim=1)


def opened(maps: Tensor) -> Tensor:
    """Maps (B, H, W) after a morphological opening by a 3x3 ellipse, which is a cross; nothing counts outside."""
    return _dilated(-_dilated(-maps))


def _dilated(maps: Tensor) -> Tensor:
    """The largest of each pixel and its four neighbours."""
    down = F.max_pool2d(maps[:, None], (3, 1), stride=1, padding=(1, 0))
    across = F.max_pool2d(maps[:, None], (1, 3), stride=1, padding=(0, 1))
    return torch.maximum(down, across)[:, 0]
