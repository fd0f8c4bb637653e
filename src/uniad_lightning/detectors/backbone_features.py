"""What methods share that work on the features of a backbone."""

import torch
from torch import Tensor, nn

from uniad_lightning.data.cached_features import cache_features, statistics_batches
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fingerprint import fingerprint
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, Size


class BackboneFeatures(AnomalyModule):
    """A method on the features of a backbone, which are cached while nothing changes them.

    With `standardize` the features have zero mean and unit deviation per channel over good training images, which the
    paper does not do.
    """

    def __init__(self, *, backbone: Backbone, score: ImageScore, seed: int, standardize: bool):
        super().__init__(score=score, seed=seed)
        self.backbone = backbone
        self.standardize = Standardize(channels=sum(backbone.channels)) if standardize else nn.Identity()
        self.mean, self.std = tuple(backbone.mean), tuple(backbone.std)

    def parts(self) -> dict[str, nn.Module]:
        """The backbone, and all else that has weights."""
        own = {name: part for name, part in self.named_children() if name not in ("backbone", "metrics")}
        return {"backbone": self.backbone, "network": nn.ModuleDict(own)}

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image of (height, width) pixels that backbone or score do not take."""
        self.backbone.check(image_size)
        super().check(image_size)

    def prepare(self) -> None:
        """Fold the backbone's batch norms."""
        self.backbone.prepare()

    def features(self, batch: Batch) -> Tensor:
        """The backbone's features (B, C, h, w) float32, from the cache or from images."""
        return (batch["feature"] if "feature" in batch else self.backbone(batch["image"])).float()

    def tokens(self, batch: Batch) -> Tensor:
        """The features as tokens (B, N, C), row-major, standardised where asked for."""
        feature = self.features(batch)
        # Contiguous, because noise that is drawn `like` tokens follows their layout in memory.
        return self.standardize(feature.flatten(2).transpose(1, 2).contiguous())

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
        cache_features(data, stage, extract=extract, about=fingerprint(self.backbone), shape=shape)

    def on_train_start(self) -> None:
        """Take the statistics of the features once; a resumed run finds them in its checkpoint."""
        if isinstance(self.standardize, Standardize) and not self.standardize.fitted:
            # Every rank sees the same images, so that all standardise alike.
            self.eval()
            with torch.no_grad():
                self.standardize.fit(self.tokens(batch) for batch in statistics_batches(self.data, self.device))
            self.train()
