"""FCDD (Liznerski et al. 2021, arXiv 2007.01760): a fully convolutional network that maps good images near 0.

The anomalies that it learns from are synthetic (confetti) or other images (outlier exposure, FCDD+OE).
Departures: batch norms of frozen modules stay in eval mode, and images are normalised as the backbone was trained,
without the paper's contrast normalisation. Settings of the training are those of liznerski/fcdd.
"""

from collections.abc import Callable

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.defects.confetti import OutlierExposure
from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.frozen_modules import freeze_first
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.initialization import check_above, check_counts
from uniad_lightning.models.receptive_field import spread, stride_of
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, pair

_TINY = 1e-31  # liznerski/fcdd: keeps the logarithm finite


class FCDD(BackboneFeatures):
    """A = sqrt(f^2 + 1) - 1 of a 1x1 convolution f over the backbone's features, small for good images (Eq. 2).

    The first `frozen_modules` modules of the backbone keep their weights. The map is A, each cell spread over
    `field` pixels by a Gaussian of `sigma` pixels; the image score is the mean of A. `outlier_exposure` is the folder
    whose images it learns from as anomalies (FCDD+OE), None for synthetic ones. With `pixel_loss` it learns where they
    are (semi-supervised FCDD, Sec. 3), else only which images have any.
    """

    paper_name = "FCDD"

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        grid: int | list[int],
        image_size: int | list[int],
        frozen_modules: int,
        field: int,
        sigma: float,
        outlier_exposure: str | None,
        pixel_loss: bool,
    ):
        super().__init__(backbone=backbone, score=ImageScore(kind="mean", window=1), standardize=False, seed=seed)
        check_counts({"field": field})
        check_above({"sigma": sigma})
        self.stride = stride_of(pair(image_size, "data.image_size"), pair(grid, "model.grid"))
        self.field, self.sigma, self.outlier_exposure = field, sigma, outlier_exposure
        self.pixel_loss = pixel_loss
        self.head = nn.Conv2d(sum(backbone.channels), 1, 1)
        self.frozen = freeze_first(backbone, frozen_modules)  # a plain list: they are the backbone's already
        self.optimizer, self.schedule = optimizer, schedule
        self.train(self.training)  # Lightning begins with the modes that it finds

    def train(self, mode: bool = True) -> "FCDD":
        """Frozen modules stay in eval mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Nothing is kept; InputError where a training has no anomalies to learn from."""
        data.cache.refuse("FCDD learns from images with synthetic defects, each time others")
        if stage == "fit" and data.defects is None:
            raise InputError("data.defects=null: FCDD learns from synthetic defects; give data/defects=confetti")
        if stage == "fit" and self.outlier_exposure is not None and not isinstance(data.defects, OutlierExposure):
            raise InputError(
                f"model.outlier_exposure={self.outlier_exposure}: data.defects makes no outliers; give "
                "data/defects=outliers, as uniad train does"
            )

    def deviation(self, features: Tensor) -> Tensor:
        """A of features (B, C, h, w), (B, h, w), at least 0."""
        squares = self.head(features)[:, 0].float().square()
        return squares / ((squares + 1).sqrt() + 1)  # the same as sqrt(f^2 + 1) - 1, which rounds small f to 0

    def spread(self, deviation: Tensor) -> Tensor:
        """A (B, h, w) at the size of the image, (B, H, W)."""
        return spread(deviation, stride=self.stride, field=self.field, sigma=self.sigma)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean loss of the images."""
        return report_loss(self, self.loss(batch), batch_idx=batch_idx, images=len(batch["damaged"]))

    def loss(self, batch: Batch) -> Tensor:
        """The mean loss of the images: good or anomalous as a whole (Eq. 2), or at each pixel (`pixel_loss`)."""
        deviation = self.deviation(self.backbone(batch["damaged"][:, 0]).float())
        anomalous = batch["damage"][:, 0]  # (B, H, W)
        if self.pixel_loss:
            deviation = self.spread(deviation)
        else:
            anomalous = anomalous.flatten(1).any(dim=1)[:, None, None]
        return heatmap_loss(deviation, anomalous)

    def anomaly_map(self, batch: Batch) -> Tensor:
        """A spread over the image, (B, H, W), at least 0."""
        return self.spread(self.deviation(self.features(batch)))

    def image_scores(self, batch: Batch, maps: Tensor) -> Tensor:
        """The mean of A over an image, of all its tiles; (B,)."""
        return self.deviation(self.features(batch)).unflatten(0, (maps.shape[0], -1)).flatten(1).mean(dim=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over all that learns."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)


def heatmap_loss(deviation: Tensor, anomalous: Tensor) -> Tensor:
    """Mean over images of mean (1 - Y) A - log(1 - exp(-mean Y A)), without the logarithm where all of Y is 0.

    A is the `deviation` (B, h, w), Y where it is `anomalous`, bool of that shape (semi-supervised FCDD, Sec. 3) or
    (B, 1, 1) for whole images (Eq. 2).
    """
    good, far = ((deviation * part).flatten(1).mean(dim=1) for part in (~anomalous, anomalous))
    away = -torch.log(-torch.expm1(-far) + _TINY)
    return torch.where(anomalous.flatten(1).any(dim=1), good + away, good).mean()
