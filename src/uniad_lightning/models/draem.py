"""The two networks of DRAEM (Zavrtanik et al. 2021): one paints a defect over, one marks it in both images."""

import torch
from torch import Tensor, nn


class ReconstructiveNetwork(nn.Module):
    """Images (B, C, H, W) -> images (B, C, H, W): an autoencoder without connections across.

    Five stages of `width` to 8 * `width` channels, halved between them; H and W have to be multiples of 16.
    """

    def __init__(self, *, channels: int, width: int):
        super().__init__()
        down = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.encoder = nn.ModuleList(_stage(a, b, b) for a, b in zip([channels, *down], down, strict=False))
        self.up = nn.ModuleList(_enlarge(c, c) for c in (8 * width, 4 * width, 2 * width, width))
        outputs = [4 * width, 2 * width, width, width]
        self.decoder = nn.ModuleList(
            _stage(a, a, b) for a, b in zip((8 * width, 4 * width, 2 * width, width), outputs, strict=True)
        )
        self.last = nn.Conv2d(width, channels, 3, padding=1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        for number, stage in enumerate(self.encoder):
            image = stage(image if number == 0 else self.pool(image))
        for up, stage in zip(self.up, self.decoder, strict=True):
            image = stage(up(image))
        return self.last(image)


class DiscriminativeNetwork(nn.Module):
    """Images (B, C, H, W) -> scores (B, 2, H, W) of good and defective before the softmax: a U-Net.

    Six stages of `width` to 8 * `width` channels, halved between them; H and W have to be multiples of 32.
    """

    def __init__(self, *, channels: int, width: int):
        super().__init__()
        down = [width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        self.encoder = nn.ModuleList(_stage(a, b, b) for a, b in zip([channels, *down], down, strict=False))
        beside = down[-2::-1]  # of the stages that are put beside the enlarged ones, deepest first
        ups = [8 * width, 4 * width, 2 * width, width, width]  # after enlarging
        ins = [8 * width, 8 * width, 4 * width, 2 * width, width]
        self.up = nn.ModuleList(_enlarge(a, b) for a, b in zip(ins, ups, strict=True))
        self.decoder = nn.ModuleList(_stage(a + b, b, b) for a, b in zip(beside, ups, strict=True))
        self.last = nn.Conv2d(width, 2, 3, padding=1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 2, H, W)."""
        levels: list[Tensor] = []
        for number, stage in enumerate(self.encoder):
            image = stage(image if number == 0 else self.pool(image))
            levels.append(image)
        for up, stage, level in zip(self.up, self.decoder, levels[-2::-1], strict=True):
            image = stage(torch.cat([up(image), level], dim=1))
        return self.last(image)


def start_as_draem(network: nn.Module) -> None:
    """Draw the weights of convolutions from N(0, 0.02) and those of batch norms from N(1, 0.02)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)


def _stage(inputs: int, middle: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(inputs, middle), *_convolution(middle, outputs))


def _enlarge(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *_convolution(inputs, outputs)
    )


def _convolution(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
