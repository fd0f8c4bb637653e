"""The detector that reconstructs features."""

from collections.abc import Callable

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.losses import ReconstructionLoss
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch


class FeatureReconstruction(BackboneFeatures):
    """A frozen backbone, a network that reconstructs its features, and the loss between the two (Fig. 3).

    `network` maps tokens (B, N, C) to their reconstruction (B, N, C). `optimizer(parameters)` and
    `schedule(optimizer, total_steps=...)` build what trains it.
    """

    precisions = ("fp32", "fp16", "int8")
    integer_parts = ("network",)

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
        super().__init__(backbone=backbone, score=score, seed=seed, standardize=standardize)
        self.network = network
        self.loss = loss
        self.optimizer = optimizer
        self.schedule = schedule

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The reconstruction loss, in float32; the target is the unjittered feature (Eq. 4)."""
        tokens = self.tokens(batch)
        loss = self.loss(tokens, self.network(tokens).float())
        return report_loss(self, loss, batch_idx=batch_idx, images=len(tokens))

    def anomaly_map(self, batch: Batch) -> Tensor:
        """The loss's own distance at each token, (B, h, w) (Eq. 5)."""
        tokens = self.tokens(batch)
        return self.loss.anomaly_map(tokens, self.network(tokens)).unflatten(1, self.backbone.grid)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The optimizer over all that learns, and its schedule, stepped with it."""
        return optimize(
            self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=self.data.steps.total_steps
        )
