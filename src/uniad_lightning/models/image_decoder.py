"""AnoViT's decoder (Lee and Kang 2022): a map of tokens becomes an image."""

import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.types import Size

_STAGES = ((256, 1), (128, 1), (64, 1), (32, 2), (16, 2))  # channels and stride of each transposed convolution


class ImageDecoder(nn.Module):
    """Feature maps (B, `channels`, h, w) -> images (B, 3, *`image_size`) in [-1, 1].

    Five transposed convolutions of 3x3, each with instance norm and ReLU, to a bilinear resize and a convolution.
    """

    def __init__(self, *, channels: int, image_size: Size):
        super().__init__()
        self.image_size = image_size
        stages: list[nn.Module] = []
        for outputs, stride in _STAGES:
            up = nn.ConvTranspose2d(channels, outputs, 3, stride=stride, padding=stride - 1)
            stages += [up, nn.InstanceNorm2d(outputs), nn.ReLU()]
            channels = outputs
        self.stages = nn.Sequential(*stages)
        self.last = nn.Conv2d(channels, 3, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W)."""
        enlarged = F.interpolate(self.stages(features), size=self.image_size, mode="bilinear", align_corners=False)
        return self.last(enlarged).tanh()
