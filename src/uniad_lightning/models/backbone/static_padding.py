"""Convolutions that pad by fixed amounts: those of 'same' padding for images of one size."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uniad_lightning.types import Size


class StaticallyPadded(nn.Conv2d):
    """`convolution`, sharing its weights, its input padded by `amounts`: left, right, top, bottom."""

    def __init__(self, convolution: nn.Conv2d, amounts: tuple[int, int, int, int]):
        super().__init__(
            convolution.in_channels,
            convolution.out_channels,
            convolution.kernel_size,  # type: ignore[arg-type]
            stride=convolution.stride,  # type: ignore[arg-type]
            dilation=convolution.dilation,  # type: ignore[arg-type]
            groups=convolution.groups,
            bias=convolution.bias is not None,
            device="meta",  # no random numbers are drawn: the weights are those of `convolution`
        )
        self.weight, self.bias = convolution.weight, convolution.bias
        self.amounts = amounts

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H', W')."""
        return self._conv_forward(F.pad(input, self.amounts), self.weight, self.bias)

    def extra_repr(self) -> str:
        """Adds the amounts, since features depend on them and are cached under this description."""
        return f"{super().extra_repr()}, amounts={self.amounts}"


def pad_as_for(model: nn.Module, size: Size, *, same: type[nn.Conv2d]) -> int:
    """Fix the padding of the strided convolutions of type `same` in `model` at what an image of `size` needs.

    With a stride of 1 'same' padding does not depend on the size. Returns how many convolutions were replaced.
    """
    strided = {name: one for name, one in model.named_modules() if isinstance(one, same) and max(one.stride) > 1}
    for name, (height, width) in _input_sizes(model, strided, size).items():
        one = strided[name]
        vertical, horizontal = (
            _same_padding(side, one.kernel_size[axis], one.stride[axis], one.dilation[axis])
            for axis, side in enumerate((height, width))
        )
        model.set_submodule(name, StaticallyPadded(one, (*horizontal, *vertical)))
    return len(strided)


def _same_padding(side: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding before and after one axis, as TensorFlow pads: ceil(side / stride) outputs, the odd pixel after."""
    total = max((-(-side // stride) - 1) * stride + (kernel - 1) * dilation + 1 - side, 0)
    return total // 2, total - total // 2


def _input_sizes(model: nn.Module, modules: dict[str, nn.Conv2d], size: Size) -> dict[str, Size]:
    """The (height, width) that reaches each of `modules` of `model` when an image of `size` goes in."""
    sizes: dict[str, Size] = {}

    def note(name: str, x: Tensor) -> None:
        sizes[name] = (x.shape[-2], x.shape[-1])

    hooks = [
        one.register_forward_pre_hook(lambda _, inputs, name=name: note(name, inputs[0]))
        for name, one in modules.items()
    ]
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, *size).to(memory_format=torch.channels_last))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return sizes
