"""MKD (Salehi et al. 2021, arXiv 2011.11108): a small network learns to answer good images as a backbone does.

Sizes and settings that the paper leaves open are those of its experiments on MVTec AD. What departs from it:

- A map is not scaled to [0, 1] for each image by default (`per_image`): the map of a good image would have as high a
  peak as that of a defective one, and no boundary could hold for both. The paper measures defective images alone.
- SmoothGrad and guided backpropagation, which the paper tries as well, are left out: gradients are plain.
- Any backbone whose levels halve the image can teach; the cloner then has its levels' channels.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.initialization import check_above, check_counts, check_flags
from uniad_lightning.models.mkd import Cloner, level_distances, opened
from uniad_lightning.scoring import ImageScore, check_reach, smooth
from uniad_lightning.types import Batch, Size, pair


class MKD(BackboneFeatures):
    """A frozen backbone teaches a `Cloner` its levels, each after a 2x2 max pool, by direction and by value.

    The loss is the sum over the levels of 1 - cosine, and of the MSE times `mse_weight`. The image score is the loss of
    the last `scored_levels`. The anomaly map is the absolute gradient of the whole loss with respect to the image,
    summed over its channels, cut at its 99th percentile, smoothed by a Gaussian of `sigma` pixels, and opened; with
    `per_image` it is scaled to [0, 1] before it is smoothed, as in the paper.

    It is not exported: a gradient is no part of a graph for inference.
    """

    paper_name = "MKD"
    precisions = ()

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        grid: int | list[int],
        width: int,
        bias: bool,
        relu: bool,
        mse_weight: float,
        scored_levels: int,
        sigma: float,
        per_image: bool,
    ):
        super().__init__(backbone=backbone, score=ImageScore(kind="max", window=1), standardize=False, seed=seed)
        if backbone.trainable:
            raise InputError("backbone.trainable=true: the backbone of model=mkd teaches and stays frozen; give false")
        check_counts({"width": width, "scored_levels": scored_levels})
        check_flags({"bias": bias, "relu": relu, "per_image": per_image})
        check_above({"mse_weight": mse_weight, "sigma": sigma}, least=0, inclusive=True)
        if scored_levels > len(backbone.levels):
            raise InputError(
                f"model.scored_levels={scored_levels}: the backbone has {len(backbone.levels)} levels; expected at "
                "most as many"
            )
        self.grid = pair(grid, "model.grid")  # of `features`
        self.strides = [2 * stride for stride in backbone.strides]
        self.network = Cloner(channels=backbone.channels, strides=self.strides, width=width, bias=bias, relu=relu)
        self.optimizer, self.schedule = optimizer, schedule
        self.mse_weight, self.scored_levels, self.sigma, self.per_image = mse_weight, scored_levels, sigma, per_image

    def parts(self) -> dict[str, nn.Module]:
        """The cloner and the teacher, in the order in which they are run."""
        return {"cloner": self.network, "backbone": self.backbone}

    def counted(self, batch: Batch) -> object:
        """Runs both networks; the way back through them, for the gradient, is not counted."""
        return self.distances(batch["image"])

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image that cannot be halved down to the last level, or that the Gaussian exceeds."""
        super().check(image_size)
        check_reach(self.sigma, image_size)
        if any(side % self.strides[-1] for side in image_size):
            raise InputError(
                f"data.image_size={list(image_size)}: model=mkd halves images down to 1/{self.strides[-1]}; give "
                f"multiples of {self.strides[-1]}"
            )

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Nothing is kept: the cloner sees the images."""
        data.cache.refuse("MKD trains on images, and needs more than their features")

    def distances(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (B, L) of direction and of value at each level of the images (B, 3, H, W)."""
        copied = self.network(image)
        taught = [F.max_pool2d(level, 2) for level in self.backbone.pyramid(image)]
        return level_distances(taught, copied)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss, a sum over all levels."""
        direction, value = (part.sum(dim=1).mean() for part in self.distances(batch["image"]))
        loss = direction + self.mse_weight * value
        parts = {"direction": direction, "value": value}
        return report_loss(self, loss, batch_idx=batch_idx, images=len(batch["image"]), parts=parts)

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Smoothed absolute gradients (B, H, W), at least 0; with `per_image` in [0, 1]."""
        grey = self.gradients(batch["image"]).abs().sum(dim=1)  # (B, H, W)
        grey = torch.minimum(grey, grey.flatten(1).quantile(0.99, dim=1)[:, None, None])
        if self.per_image:
            low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
            grey = (grey - low) / (high - low).clamp_min(1e-30)
        return opened(smooth(grey, self.sigma))

    def gradients(self, image: Tensor) -> Tensor:
        """The gradient of each image's loss with respect to it, (B, 3, H, W); also where gradients are switched off."""
        with torch.inference_mode(False), torch.enable_grad():
            image = image.detach().clone().requires_grad_()  # a tensor of inference mode cannot have a gradient
            direction, value = self.distances(image)
            return torch.autograd.grad((direction + self.mse_weight * value).sum(), image)[0]

    def image_scores(self, batch: Batch, maps: Tensor) -> Tensor:
        """The loss of the last `scored_levels`, (B,), at least 0; the largest of an image's tiles."""
        direction, value = (part[:, -self.scored_levels :].sum(dim=1) for part in self.distances(batch["image"]))
        return (direction + self.mse_weight * value).unflatten(0, (maps.shape[0], -1)).amax(dim=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over the cloner."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)
