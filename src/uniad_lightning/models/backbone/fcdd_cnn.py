"""FCDD's network for images of 32 pixels (FCDD_CNN32_LW3K of liznerski/fcdd), as a model of timm's registry.

It is trained from its beginning, so there are no weights for it. It has 1,185,152 parameters without the last 1x1
convolution (129), which belongs to the detector; the 1,185,537 of liznerski/fcdd include an unused batch norm (256).
"""

from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import nn

_EPS = 1e-4  # liznerski/fcdd: of the batch norms


class FCDDNetwork(nn.Sequential):
    """Four 3x3 convolutions and two poolings, (B, 3, H, W) -> (B, 128, H / 4, W / 4).

    A cell sees 22x22 pixels. `in_chans` is timm's name of the number of channels of an image.
    """

    def __init__(self, *, in_chans: int = 3):
        super().__init__()
        self._stage(1, in_chans, 128)
        self.pool1 = nn.MaxPool2d(2)
        self._stage(2, 128, 256)
        self._stage(3, 256, 256)
        self.pool2 = nn.MaxPool2d(2)
        self.conv4 = nn.Conv2d(256, 128, 3, padding=1)
        self.feature_info = [{"num_chs": 128, "reduction": 4, "module": "conv4"}]

    def _stage(self, number: int, inputs: int, outputs: int) -> None:
        self.add_module(f"conv{number}", nn.Conv2d(inputs, outputs, 3, padding=1))
        self.add_module(f"norm{number}", nn.BatchNorm2d(outputs, eps=_EPS))
        self.add_module(f"act{number}", nn.LeakyReLU())


@register_model
def fcdd_cnn32(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """`timm.create_model("fcdd_cnn32", features_only=True)`."""
    return build_model_with_cfg(
        FCDDNetwork,
        "fcdd_cnn32",
        pretrained,
        kwargs_filter=("num_classes", "global_pool"),  # type: ignore[arg-type]  # it is annotated as of one name
        **arguments,
    )
