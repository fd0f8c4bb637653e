"""The frozen feature pyramid: any timm model, its levels aligned to one grid (Sec. 3.3, appendix B.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, Conv2dSame, Format, PatchEmbed
from torch import Tensor, nn

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.models.backbone.at_once import PIXELS_AT_ONCE
from uniad_lightning.models.backbone.batch_norm_folding import GATE, Folded
from uniad_lightning.models.backbone.static_padding import pad_as_for
from uniad_lightning.models.backbone.timm_model import create_feature_model, feature_info, pretrained_config
from uniad_lightning.precision import in_float32
from uniad_lightning.types import Size, pair


class Backbone(nn.Module):
    """Normalised images (B, 3, H, W) -> features (B, C, h, w) of a frozen timm model.

    `name` is a timm model, `levels` the indices of its feature levels, shallow first; they are resized to `grid` and
    concatenated, so C is the sum of their `channels`. The levels of a vision transformer are its blocks, all on one
    grid: their patch tokens as the residual stream holds them, without class and register tokens and without the final
    norm. `weights` is `pretrained` (an installed package of weights, else timm's hub), a file (.safetensors, or .pth
    read with `weights_only`; a bare name may be one the package carries), or `random`. `arguments` go to
    `timm.create_model`. `mean` and `std` are those of the model's own `pretrained_cfg` unless given. Unless `trainable`
    (Table A5), parameters do not require gradients and the mode stays `eval`.

    Not in the paper: With `only_deepest` the last of the levels is used alone, which trains faster. `resize` is
    `bilinear`, with aligned corners (the reference), or `nearest`, which repeats the cells of deeper levels (PaDiM).
    `window` is the side of the square of cells that each level is averaged over, cells outside counting as zeros
    (PatchCore, Roth et al. 2022, as in anomalib).
    With `padding_for` strided convolutions pad as for images of that size, whatever size comes (as the reference does).

    Raises InputError for an unknown model, levels or arguments it does not have, weights that are not available or do
    not fit, an unknown `resize`, an even `window`, and `padding_for` where the model's padding does not depend on the
    size of its images.
    """

    def __init__(
        self,
        *,
        name: str,
        levels: Sequence[int],
        grid: Sequence[int],
        weights: str,
        arguments: Mapping[str, Any] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        trainable: bool = False,
        only_deepest: bool = False,
        resize: str = "bilinear",
        window: int = 1,
        padding_for: int | Sequence[int] | None = None,
    ):
        super().__init__()
        if resize not in ("bilinear", "nearest"):
            raise InputError(f"backbone.resize={resize}: expected bilinear or nearest")
        _check_window(window)
        self.name, self.resize, self.window, self.trainable = name, resize, window, trainable
        self.weights, self.arguments = weights, dict(arguments or {})
        self.levels = [int(level) for level in (levels[-1:] if only_deepest else levels)]
        self.grid = pair(grid, "model.grid")
        self.model = create_feature_model(name, self.levels, weights, self.arguments)
        info, config = feature_info(self.model), pretrained_config(name)
        self.channels: list[int] = info.channels()
        self.strides: list[int] = info.reduction()
        self.channels_last = getattr(self.model, "output_fmt", Format.NCHW) == Format.NHWC
        self.mean, self.std = tuple(mean or config.mean), tuple(std or config.std)
        self._folded = Folded({nn.BatchNorm2d: _nothing, BatchNormAct2d: _activation})
        self.to(memory_format=torch.channels_last)
        if padding_for is not None:
            self._pad_for(pair(padding_for, "backbone.padding_for"))
        self.requires_grad_(trainable)
        self.train(self.training)

    def _pad_for(self, size: Size) -> None:
        """Fix the padding at what images of `size` need."""
        if not pad_as_for(self.model, size, same=Conv2dSame):
            raise InputError(
                f"backbone.padding_for={_as_option(size)}: {self.name} pads alike for images of every size; it is for "
                "models whose padding depends on the size, such as tf_efficientnet_b4"
            )

    def train(self, mode: bool = True) -> "Backbone":
        """A frozen backbone stays in eval mode: its batch statistics are those of its own training."""
        return super().train(mode and self.trainable)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C, h, w), in float32 also under autocast, unless the backbone learns."""
        image = image.contiguous(memory_format=torch.channels_last)
        learning = self.model.training or any(parameter.requires_grad for parameter in self.model.parameters())
        if learning or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._features(self.model, image)
        at_once = PIXELS_AT_ONCE // image.shape[2:].numel() if image.device.type == "cpu" else len(image)
        model = self._folded(self.model)
        with in_float32(image.device):  # as the cache keeps them, and as a detector computes them outside training
            return torch.cat([self._features(model, part) for part in image.split(max(at_once, 1))])

    def pyramid(self, image: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) -> the levels at their own sizes, (B, C_l, h_l, w_l), in float32; shallow first."""
        model = self.model if self.trainable else self._folded(self.model)
        with in_float32(image.device):
            levels = model(image.contiguous(memory_format=torch.channels_last))
        return [level.permute(0, 3, 1, 2) if self.channels_last else level for level in levels]

    def prepare(self) -> None:
        """Fold batch norms while no other thread runs a model (`GATE`); after that any number of threads may."""
        with GATE.tracing():
            self._folded(self.model)

    def fold(self) -> None:
        """Fold batch norms for good; the backbone cannot be trained any more."""
        self.model = self._folded(self.model)

    def check(self, size: Size) -> None:
        """Checks that the model takes images of `size` (height, width) pixels, in the end with a blank image.

        Raises InputError for a side shorter than the deepest stride or not divided by the patches, and for any size but
        its own to a model of one fixed size.
        """
        given, deepest = f"data.image_size={_as_option(size)}", max(self.strides)
        if min(size) < deepest:
            raise InputError(f"{given}: {self.name} has a stride of {deepest}; expected {deepest} or more")
        error = _refusal(self.model, size)
        if error is None:
            return
        embed = getattr(getattr(self.model, "model", self.model), "patch_embed", None)
        if isinstance(embed, PatchEmbed) and not embed.strict_img_size:
            sides = list(zip(size, embed.patch_size, strict=True))
            below, above = [side // p * p for side, p in sides], [-(-side // p) * p for side, p in sides]
            if below != above:
                raise InputError(
                    f"{given}: {self.name} cuts images into patches of {embed.patch_size[0]}x{embed.patch_size[1]}; "
                    f"expected a size they divide, such as {_as_option(below)} or {_as_option(above)}"
                ) from error
        native = getattr(embed, "img_size", None) or pretrained_config(self.name).input_size[1:]
        raise InputError(
            f"{given}: {self.name} refuses it ({one_line(error)}); expected {_as_option(native)}, or where the model "
            f"can be built for another size, 'backbone.arguments={{img_size: {_as_option(size)}}}'"
        ) from error

    def _features(self, model: nn.Module, image: Tensor) -> Tensor:
        """All levels of `image` by `model`, which is the model itself or its folded form."""
        return torch.cat([self._align(level) for level in model(image)], 1)

    def _align(self, level: Tensor) -> Tensor:
        """One level, (B, C_l, h_l, w_l) or channels last, on the common grid: (B, C_l, h, w)."""
        if self.channels_last:
            level = level.permute(0, 3, 1, 2)
        if self.window > 1:
            level = F.avg_pool2d(level, self.window, stride=1, padding=self.window // 2)
        if tuple(level.shape[-2:]) == self.grid:
            return level
        if self.resize == "nearest":
            return F.interpolate(level, size=self.grid, mode="nearest")
        return F.interpolate(level, size=self.grid, mode="bilinear", align_corners=True)


def _check_window(window: int) -> None:
    if not isinstance(window, int) or isinstance(window, bool) or window < 1 or window % 2 == 0:
        raise InputError(f"backbone.window={window}: expected an odd number of cells, 1 for no averaging")


def _nothing(_: nn.Module) -> nn.Module:
    """What is left of a folded `BatchNorm2d`."""
    return nn.Identity()


def _activation(norm: nn.Module) -> nn.Module:
    """What is left of a folded `BatchNormAct2d`."""
    return norm.get_submodule("act")


def _as_option(size: Sequence[int]) -> str:
    """A size as the command line takes it: `224`, or `[224,448]` where the sides differ."""
    return str(size[0]) if size[0] == size[1] else f"[{size[0]},{size[1]}]"


def _refusal(model: nn.Module, size: Size) -> Exception | None:
    """The model's error for one blank image of `size`, None without; timm's families raise different ones."""
    modes = [(part, part.training) for part in model.modules()]  # those of its parts may differ
    blank = torch.zeros(1, 3, *size, device=next(model.parameters()).device).to(memory_format=torch.channels_last)
    try:
        with GATE.running(), torch.no_grad():
            model.eval()(blank)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:
        return error
    finally:
        for part, training in modes:
            part.training = training
    return None
