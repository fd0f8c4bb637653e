"""AnoViT (Lee and Kang 2022, arXiv 2203.10808): an image is decoded from the tokens of a vision transformer.

The sizes of the decoder and the settings of the training are those of johnbuzz98/JPEG-Ano-ViT, which derives from the
authors' code; the learning rate is ours. Any backbone can take the place of the transformer, its features on `grid`.
"""

from collections.abc import Callable

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.image_decoder import ImageDecoder
from uniad_lightning.models.initialization import check_above
from uniad_lightning.scoring import ImageScore, check_reach, smooth
from uniad_lightning.types import Batch, pair


class AnoViT(BackboneFeatures):
    """The anomaly map is the squared error of the decoded image, its channels averaged, smoothed by `sigma` pixels.

    The loss is the mean squared error over all pixels, which are from -1 to 1 for both. The image score is the map's
    maximum before it is smoothed. With `backbone.trainable` the transformer learns too, as in the paper.
    """

    paper_name = "AnoViT"

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        grid: int | list[int],
        image_size: int | list[int],
        sigma: float,
    ):
        super().__init__(backbone=backbone, score=ImageScore(kind="max", window=1), standardize=False, seed=seed)
        self.grid, self.image_size = pair(grid, "model.grid"), pair(image_size, "data.image_size")
        check_above({"sigma": sigma}, least=0, inclusive=True)
        check_reach(sigma, self.image_size)
        self.sigma = sigma
        self.decoder = ImageDecoder(channels=sum(backbone.channels), image_size=self.image_size)
        self.optimizer, self.schedule = optimizer, schedule

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Nothing is kept: the images are what is reconstructed."""
        data.cache.refuse("AnoViT reconstructs images, and needs more than their features")

    def error(self, batch: Batch) -> Tensor:
        """Squared error of the decoded image, (B, 3, H, W)."""
        mean, std = (batch["image"].new_tensor(part).view(3, 1, 1) for part in (self.mean, self.std))
        pixels = 2 * (batch["image"] * std + mean) - 1
        return (self.decoder(self.features(batch)).float() - pixels).square()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean squared error."""
        error = self.error(batch)
        return report_loss(self, error.mean(), batch_idx=batch_idx, images=len(error))

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Smoothed squared errors (B, H, W), from 0 to 4."""
        return smooth(self.error(batch).mean(dim=1), self.sigma)

    def image_scores(self, batch: Batch, maps: Tensor) -> Tensor:
        """The largest error of a pixel (B,), which is not smoothed; of all tiles of an image."""
        return self.error(batch).mean(dim=1).flatten(1).amax(dim=1).unflatten(0, (maps.shape[0], -1)).amax(dim=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over all that learns."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)
