"""PANDA (Reiss et al. 2021, arXiv 2010.05903): pretrained features, drawn together for good images; nearest neighbours.

Written from the paper alone. Both of its ways against a collapse: an early stop, and elastic weight consolidation
(`ewc`), whose Fisher information is that of classes drawn from the classifier, so that its images need no labels.
Departures: images are resized to their size, not cropped. The paper has no anomaly map for these features (it
segments by SPADE); here it is the same distance at each place of the last feature map.
"""

from collections.abc import Callable, Iterator

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.cached_features import statistics_batches
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.folder_images import folder_dataset
from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.frozen_modules import freeze_first
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fisher import fisher_information
from uniad_lightning.models.elastic_weights import ElasticWeights
from uniad_lightning.models.initialization import check_above, check_counts
from uniad_lightning.models.layers.state_shapes import follow_state
from uniad_lightning.progress_bar import progress_bar
from uniad_lightning.randomness import key
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch


class PANDA(BackboneFeatures):
    """The image score is the sum of squared distances to the `neighbors` nearest train images' features.

    A feature is the mean of the backbone's last map over its places. The loss is the squared distance to `center`, the
    mean of the pretrained features of the train images. With `ewc` the penalty of elastic weight consolidation of that
    weight is added, by the Fisher information of the images in `fisher_images` (None: train images). The first
    `frozen_modules` of the backbone keep their weights, and all batch norms their statistics. The `bank` of train
    features is computed anew after each epoch.
    """

    paper_name = "PANDA"

    center: Tensor
    centered: Tensor
    bank: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        grid: int | list[int],
        frozen_modules: int,
        neighbors: int,
        ewc: float | None = None,
        fisher_images: str | None = None,
    ):
        super().__init__(backbone=backbone, score=ImageScore(kind="max", window=1), standardize=False, seed=seed)
        check_counts({"neighbors": neighbors})
        freeze_first(backbone, frozen_modules)
        if not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise InputError(f"model.frozen_modules={frozen_modules}: leaves nothing of {backbone.name} to learn")
        check_above({} if ewc is None else {"ewc": ewc})
        if ewc is None and fisher_images is not None:
            raise InputError(
                f"model.fisher_images={fisher_images}: is for model.ewc, which is null; set it, such as 1e4"
            )
        self.neighbors, self.fisher_images = neighbors, fisher_images
        self.elastic = None if ewc is None else ElasticWeights(self._learning(), weight=ewc)
        channels = sum(backbone.channels)
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("centered", torch.tensor(False))
        self.register_buffer("bank", torch.empty(0, channels))
        follow_state(self, ["bank"])
        self.optimizer, self.schedule = optimizer, schedule
        self.train(self.training)  # Lightning begins with the modes that it finds

    def train(self, mode: bool = True) -> "PANDA":
        """The backbone stays in eval mode."""
        super().train(mode)
        self.backbone.model.eval()
        return self

    def _learning(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Nothing is kept: the features change with every step."""
        data.cache.refuse("PANDA trains its backbone, which changes the features with every step")
        if stage == "fit" and len(data.splits.train) < self.neighbors:
            raise InputError(f"data: {len(data.splits.train)} train images; PANDA needs at least {self.neighbors}")
        if stage == "fit" and self.fisher_images is not None and not self.centered:
            folder_dataset(data, self.fisher_images, key="model.fisher_images")  # refused now, not after the first pass

    def _train_features(self) -> Tensor:
        """The features (M, C) of all train images in order, the same on every process."""
        batches = statistics_batches(self.data, self.device, count=len(self.data.splits.train))
        with torch.no_grad():
            return torch.cat([self.backbone(batch["image"]).float().mean(dim=(2, 3)) for batch in batches])

    def on_train_start(self) -> None:
        """Take of the pretrained features the center, and what `ewc` needs; a resumed run finds both."""
        if self.centered:
            return
        self.center.copy_(self._train_features().mean(dim=0))
        if self.elastic is not None:
            learning = {name: one for name, one in self.backbone.model.named_parameters() if one.requires_grad}
            found = fisher_information(self.backbone, self._fisher_images(), seed=key("fisher", self.seed))
            self.elastic.fit(learning, found)
        self.centered.fill_(True)

    def _fisher_images(self) -> Iterator[Tensor]:
        """One image (3, H, W) after the other, the same on every process: the folder's, or up to 512 train images."""
        if self.fisher_images is None:
            for batch in statistics_batches(self.data, self.device):
                yield from batch["image"]
        else:
            dataset = folder_dataset(self.data, self.fisher_images, key="model.fisher_images")
            shown = self.trainer.is_global_zero
            for i in progress_bar("Fisher information", range(len(dataset)), shown=shown, leave=False, delay=2):
                yield torch.as_tensor(dataset[i]["image"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean squared distance to the center, and the penalty of `ewc` where there is one."""
        features = self.backbone(batch["image"]).float().mean(dim=(2, 3))
        loss, parts = (features - self.center).square().sum(dim=1).mean(), {}
        if self.elastic is not None:
            parts = {"compactness": loss.detach(), "ewc": self.elastic(self._learning())}
            loss = loss + parts["ewc"]
        return report_loss(self, loss, batch_idx=batch_idx, images=len(features), parts=parts)

    def on_train_epoch_end(self) -> None:
        """Put the train images' features into the bank, before a checkpoint is written."""
        self.bank = self._train_features()

    def distance(self, features: Tensor) -> Tensor:
        """Sum of the squared distances of features (B, N, C) to the nearest of the bank, (B, N), at least 0."""
        if not len(self.bank):
            raise InputError("the training ended within its first epoch, so the bank of PANDA is empty; resume it")
        known, found = self.bank - self.center, features - self.center  # differences of small numbers round less
        squares = found.square().sum(dim=2, keepdim=True) + known.square().sum(dim=1) - 2 * found @ known.T
        return squares.topk(self.neighbors, dim=2, largest=False).values.clamp_min(0).sum(dim=2)

    def anomaly_map(self, batch: Batch) -> Tensor:
        """The distance at each place, (B, h, w), at least 0."""
        features = self.features(batch)
        return self.distance(features.flatten(2).transpose(1, 2)).unflatten(1, self.backbone.grid)

    def image_scores(self, batch: Batch, maps: Tensor) -> Tensor:
        """The distance of an image's feature, (B,); of several tiles the largest."""
        pooled = self.features(batch).mean(dim=(2, 3))
        return self.distance(pooled[:, None])[:, 0].unflatten(0, (maps.shape[0], -1)).amax(dim=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over all that learns."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)
