"""The detector that reconstructs features."""

from collections.abc import Callable

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.errors import InputError, one_line
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fingerprint import fingerprint
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.models.losses import ReconstructionLoss
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch


class FeatureReconstruction(AnomalyModule):
    """A frozen backbone, a network that reconstructs its features, and the loss between the two (Fig. 3).

    `network` maps tokens (B, N, C) to their reconstruction (B, N, C). `optimizer(parameters)` and
    `schedule(optimizer, total_steps=...)` build what trains it. With `standardize` the features have zero mean and unit
    deviation per channel over good training images, which the paper does not do.
    """

    def __init__(
        self,
        *,
        backbone: Backbone,
        network: nn.Module,
        loss: ReconstructionLoss,
        score: ImageScore,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        standardize: bool,
    ):
        super().__init__(score=score, seed=seed)
        self.backbone = backbone
        self.standardize = Standardize(channels=sum(backbone.channels)) if standardize else nn.Identity()
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule

    def features(self, batch: Batch) -> Tensor:
        """The backbone's features (B, C, h, w) float32, from the cache or from images."""
        return (batch["feature"] if "feature" in batch else self.backbone(batch["image"])).float()

    def tokens(self, batch: Batch) -> Tensor:
        """The features as tokens (B, N, C), row-major, standardised where asked for."""
        feature = self.features(batch)
        # Contiguous, because noise that is drawn `like` tokens follows their layout in memory.
        return self.standardize(feature.flatten(2).transpose(1, 2).contiguous())

    def setup(self, stage: str) -> None:
        """Fill the feature cache with what `stage` needs of it."""
        self.fill_cache(self.data, stage)

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Have the features of `data`, which belongs to a trainer, in its cache as far as `stage` needs them."""
        if self.backbone.trainable:
            data.cache.refuse("backbone.trainable=true changes the features with every step")
            return
        device = data.running_trainer.strategy.root_device
        self.backbone.to(device)

        @torch.inference_mode()
        def extract(image: Tensor) -> Tensor:
            return self.backbone(image.to(device, non_blocking=True))

        shape = (sum(self.backbone.channels), *self.backbone.grid)
        data.cache_features(stage, extract=extract, about=fingerprint(self.backbone), shape=shape)

    def on_train_start(self) -> None:
        """Take the statistics of the features once; a resumed run finds them in its checkpoint."""
        if isinstance(self.standardize, Standardize) and not self.standardize.fitted:
            # Every rank sees the same images, so that all standardise alike.
            self.eval()
            with torch.no_grad():
                self.standardize.fit(self.tokens(batch) for batch in self.data.statistics_batches(self.device))
            self.train()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The reconstruction loss, in float32; the target is the unjittered feature (Eq. 4)."""
        tokens = self.tokens(batch)
        loss = self.loss(tokens, self.network(tokens).float())
        if (batch_idx % 10 == 0 or self.trainer.is_last_batch) and not loss.isfinite():
            raise InputError(
                f"the loss is {loss.item()} at step {self.trainer.global_step}: the training has diverged; lower "
                "optimizer.lr, and resume from an earlier checkpoint if there is one"
            )
        self.log("train/loss_step", loss)
        self.log("train/loss_epoch", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(tokens))
        return loss

    def anomaly_map(self, batch: Batch) -> Tensor:
        """The loss's own distance at each token, (B, h, w) (Eq. 5)."""
        tokens = self.tokens(batch)
        return self.loss.anomaly_map(tokens, self.network(tokens)).unflatten(1, self.backbone.grid)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer over all that learns, and its schedule, stepped once per batch."""
        try:
            optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
            schedule = self.schedule(optimizer, total_steps=self.total_steps())
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError(f"optimizer or schedule: a value does not fit; {one_line(error)}") from error
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.data.total_steps
