"""Features of EfficientNet-B4: the package's backbone against timm's own feature model, same weights, same images."""

import timm
import torch
import torch.nn.functional as F
from timing import Row, compare, in_turn, prove_equal
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from uniad_lightning.models.backbone.feature_pyramid import Backbone

NAME, LEVELS, GRID, BATCH = "tf_efficientnet_b4.aa_in1k", (0, 1, 2, 3), (14, 14), 16


def with_statistics(model: nn.Module) -> nn.Module:
    """Gives the batch norms of a random model something to do."""
    generator = torch.Generator().manual_seed(1)
    for norm in filter(lambda module: isinstance(module, nn.BatchNorm2d), model.modules()):
        state = norm.state_dict()
        for name in ("weight", "running_var"):
            state[name] = 0.5 + torch.rand(state[name].shape, generator=generator)
        for name in ("bias", "running_mean"):
            state[name] = torch.randn(state[name].shape, generator=generator) / 10
        norm.load_state_dict(state)
    return model


def aligned(levels: list[Tensor]) -> Tensor:
    return torch.cat([F.interpolate(level, GRID, mode="bilinear", align_corners=True) for level in levels], 1)


def flops(model: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        model(image)
    return float(counter.get_total_flops())


@torch.inference_mode()
def rows(quick: bool) -> list[Row]:
    torch.manual_seed(0)
    theirs = with_statistics(timm.create_model(NAME, features_only=True, out_indices=LEVELS)).eval()
    ours = Backbone(name=NAME, levels=LEVELS, grid=GRID, weights="random")
    ours.model.load_state_dict(theirs.state_dict(), strict=False)
    image = torch.randn(BATCH, 3, 224, 224)
    prove_equal(ours(image), aligned(theirs(image)), "backbone")
    seconds = in_turn(
        {"ours": lambda: ours(image), "theirs": lambda: aligned(theirs(image))}, repeats=3 if quick else 9
    )
    own, other = ([second / BATCH for second in seconds[name]] for name in ("ours", "theirs"))
    square = torch.randn(2048, 2048)
    product = in_turn({"product": lambda: square @ square}, repeats=5)["product"]
    # No implementation in float32 is faster than the multiplications that are left at the speed of a large product.
    bound = flops(ours, image[:1]) * min(product) / (2 * 2048**3)
    return [
        compare(f"EfficientNet-B4 features, 224 px, batch {BATCH}, one image: timm, default layout", own, other, 10),
        compare(
            "  the most to be had: its float32 multiplications at the speed of a matrix product",
            [bound] * len(other),
            other,
        ),
    ]
