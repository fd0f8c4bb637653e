"""How large a detector is: parameters, and operations for one image (appendix D.1, Table A7)."""

from collections.abc import Sequence
from operator import sub
from typing import NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.paper.numbers import TABLE_A7
from uniad_lightning.results.printing import LEFT, RIGHT, print_table
from uniad_lightning.training.build import build_module
from uniad_lightning.training.method import leave_out_unused
from uniad_lightning.types import pair

PAPER_FLOPS = 1e9 * TABLE_A7["UniAD"].gflops
PAPER_LEARNABLE = 1e6 * TABLE_A7["UniAD"].learnable


class Part(NamedTuple):
    """The size of one part of a detector.

    Attributes:
        parameters: all of them.
        learnable: parameters that are trained.
        flops: floating-point operations for one image, a multiplication and an addition counted as two.
    """

    parameters: int
    learnable: int
    flops: int


class Complexity(NamedTuple):
    """The parts of a detector that have weights; Table A7 compares the sums of `learnable` and of `flops`."""

    parts: dict[str, Part]

    @property
    def total(self) -> Part:
        """The sum over the parts."""
        return Part(*(sum(column) for column in zip(*self.parts.values(), strict=True)))


def complexity(cfg: DictConfig) -> Complexity:
    """Count parameters and operations of the detector that `cfg` describes, and print them beside the paper's.

    Raises InputError for a setting in `cfg` that cannot be used.
    """
    leave_out_unused(cfg)
    module = build_module(cfg, announce=False)
    counted = count_complexity(module, cfg.data.image_size)
    show_complexity(counted, paper_name=module.paper_name)
    return counted


def count_complexity(module: AnomalyModule, image_size: int | Sequence[int]) -> Complexity:
    """Parameters of `module`, and operations of its inference for one image of `image_size` (height, width) pixels.

    Counts the products of convolutions, linear layers and attention, by running them in eval mode; not operations done
    once per element (activations, normalisation, softmax, additions), nor resizing, the anomaly map and its upsampling,
    which together are small. The paper's default has 7,717,392 learnable parameters, as the reference's code has (Table
    A7: 7.48 M), and takes 5.24 G operations at 224 pixels, 3.40 of them the network (Table A7: 6.46). It would be 6.41
    with the blocks of EfficientNet-B4 after the last level used, which are not run here. Of a method that is fitted in
    one pass only the features are counted, since its comparisons depend on the number of training images.

    Raises InputError for an image size that the detector does not accept.
    """
    size = pair(image_size, "data.image_size")
    module.check(size)
    weight = next(module.parameters())
    image = torch.zeros(1, 3, *size, device=weight.device, dtype=weight.dtype)
    training = module.training
    module.eval()
    try:
        flops = _count(module, image)
    finally:
        module.train(training)
    parts = {name: _part(part, flops[name]) for name, part in module.parts().items()}
    if module.fitted:
        parts["fitted"] = Part(module.fitted, module.fitted, 0)
    return Complexity(parts)


def show_complexity(counted: Complexity, *, paper_name: str | None = None) -> None:
    """Print the parts, their sum, and below the paper's numbers of UniAD and of the method `paper_name`."""
    rows: list[Sequence[object] | None] = [
        (name, f"{part.parameters:,}", f"{part.learnable:,}", f"{part.flops / 1e9:.2f}")
        for name, part in {**counted.parts, "total": counted.total}.items()
    ]
    rows.append(None)
    for name in dict.fromkeys((paper_name, "UniAD")):
        if name in TABLE_A7:
            size = TABLE_A7[name]
            rows.append((f"{name} in Table A7", "", f"{1e6 * size.learnable:,.0f}", f"{size.gflops:.2f}"))
    print_table("per image", [("", LEFT), ("parameters", RIGHT), ("learnable", RIGHT), ("GFLOPs", RIGHT)], rows)


def _count(module: AnomalyModule, image: Tensor) -> dict[str, int]:
    """Operations of each part of `module` for an image: those up to its end; of the last part all that remain."""
    # The counter supports fused attention on GPUs alone; the MATH kernel is two matrix products. Without gradients it
    # fails on a view of a parameter, such as the learned queries.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        ends = [
            part.register_forward_hook(lambda *_: done.append(counter.get_total_flops()))
            for part in list(module.parts().values())[:-1]
        ]
        done: list[int] = []
        try:
            module.counted({"image": image})
        finally:
            for end in ends:
                end.remove()
        done.append(counter.get_total_flops())
    return dict(zip(module.parts(), map(sub, done, [0, *done]), strict=True))


def _part(part: nn.Module, flops: int) -> Part:
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in part.parameters()]
    return Part(sum(count for count, _ in counts), sum(count for count, learns in counts if learns), flops)
