"""The Lightning side: what every detector shares, and the detector that reconstructs features."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.framing import Framing
from uniad_lightning.errors import InputError, complain, one_line
from uniad_lightning.losses import ReconstructionLoss
from uniad_lightning.metrics import AnomalyMetrics, Evaluation
from uniad_lightning.models.backbone import Backbone
from uniad_lightning.models.standardize import Standardize
from uniad_lightning.precision import in_float32
from uniad_lightning.randomness import seed_step
from uniad_lightning.scoring import ImageScore, upsample
from uniad_lightning.types import Batch, Size


class Look(NamedTuple):
    """What a detector sees in B pictures.

    Attributes:
        grid: anomaly maps (B, h, w) on the detector's own grid, tiles put together.
        map: the same (B, H, W) at the size that is scored, what is not judged at the map's minimum.
        score: image scores (B,).
        descriptor: mean features (B, C), None of a detector without.
    """

    grid: Tensor
    map: Tensor
    score: Tensor
    descriptor: Tensor | None


class AnomalyModule(L.LightningModule):
    """A detector: a subclass gives `training_step` and `anomaly_map`; evaluation and prediction are here.

    After an evaluation `evaluation` holds its result, and `metrics` still holds what it was computed from.
    """

    def __init__(self, *, score: ImageScore, seed: int):
        super().__init__()
        self.score = score
        self.seed = seed
        self.metrics: AnomalyMetrics | None = None
        self.evaluation: Evaluation | None = None
        self.vanished_masks = 0

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Anomaly maps (B, h, w) float32 on the detector's own grid, larger = more anomalous."""
        raise NotImplementedError

    def features(self, batch: Batch) -> Tensor | None:
        """Features (B, C, h, w) by which products differ, where the detector has some."""
        return None

    def look(self, batch: Batch, *, framing: Framing, size: Size) -> Look:
        """Judge pictures, each one image or (B, T, 3, H, W) of `framing`'s tiles, their maps scored at `size`.

        Everything is computed in float32, also under autocast.
        """
        with in_float32(self.device):
            return self._look(batch, framing=framing, size=size)

    def _look(self, batch: Batch, *, framing: Framing, size: Size) -> Look:
        if "image" in batch and batch["image"].ndim == 5:
            batch = {**batch, "image": batch["image"].flatten(0, 1)}
        features = self.features(batch)
        if features is not None:
            batch = {**batch, "feature": features}
        grid = framing.stitch(self.anomaly_map(batch).float())  # (B, h, w)
        full = upsample(grid, size)  # (B, H, W)
        ignored = framing.ignored(size)
        if ignored is not None:
            full = torch.where(ignored.to(full.device), full.amin(dim=(1, 2), keepdim=True), full)
        pooled = None if features is None else features.mean(dim=(2, 3)).unflatten(0, (-1, framing.count)).mean(dim=1)
        return Look(grid, full, self.score(full), pooled)

    @property
    def data(self) -> UnifiedDataModule:
        """The data module of the running trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Key all that is drawn in this step to (seed, epoch, step) and the sample."""
        epoch, step = divmod(self.trainer.global_step, self.data.steps_per_epoch)
        seed_step(seed=self.seed, epoch=epoch, step=step, rank=self.global_rank)

    def on_test_epoch_start(self) -> None:
        """Start an evaluation of the whole test split."""
        splits = self.data.splits
        self.metrics = AnomalyMetrics(
            categories=splits.categories,
            num_images=len(splits.test),
            foreign=set(splits.categories) - {record.category for record in splits.train},
            ignored=self.data.framing.ignored(self.data.map_size),
        ).to(self.device)
        self.vanished_masks = 0

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Score a batch in float32; for callbacks, `map` (B, H, W) at the mask's size and `score` (B,)."""
        if len(batch["index"]) == 0:
            return None
        with in_float32(self.device):
            return self._score(batch)

    def _score(self, batch: Batch) -> dict[str, Tensor]:
        assert self.metrics is not None
        framing = self.data.framing
        look = self.look(batch, framing=framing, size=self.data.map_size)
        self._refuse_not_finite(look.grid, batch)
        ignored = framing.ignored(self.data.map_size)
        if ignored is not None:
            batch["mask"] = batch["mask"] & ~ignored.to(batch["mask"].device)  # callbacks see it, too
        self.metrics.update(
            maps=look.grid,
            scores=look.score,
            masks=batch["mask"],
            has_mask=batch["has_mask"],
            labels=batch["label"],
            categories=batch["category"],
            indices=batch["index"],
        )
        unseen = (batch["label"] == 1) & batch["has_mask"] & ~batch["mask"].flatten(1).any(dim=1)
        self.vanished_masks += int(unseen.sum())
        return {"map": look.map, "score": look.score}

    def on_test_epoch_end(self) -> None:
        """Compute and log the metrics of the evaluation."""
        assert self.metrics is not None
        self.evaluation = self.metrics.compute()
        vanished = torch.tensor(self.vanished_masks, device=self.device)
        self.vanished_masks = int(self.trainer.strategy.reduce(vanished, reduce_op="sum"))
        if self.vanished_masks and self.trainer.is_global_zero:
            size = " x ".join(map(str, self.data.map_size))
            complain(f"warning: {self.vanished_masks} masks have no pixel left that is judged at {size}")
        for name, row in (("mean", self.evaluation.mean), ("pooled", self.evaluation.pooled)):
            numbers = {f"{name}/{key}": value for key, value in row._asdict().items() if key != "images"}
            self.log_dict(numbers, sync_dist=True, reduce_fx="max")  # all ranks have the same

    def _refuse_not_finite(self, maps: Tensor, batch: Batch) -> None:
        bad = ~maps.isfinite().flatten(1).all(dim=1)
        if bad.any():
            image = self.data.splits.test[int(batch["index"][bad][0])].image
            raise InputError(f"{image}: its anomaly map is not finite; the weights have diverged, lower optimizer.lr")

    on_validation_epoch_start = on_test_epoch_start
    validation_step = test_step
    on_validation_epoch_end = on_test_epoch_end


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


def fingerprint(backbone: Backbone) -> dict[str, Any]:
    """What the features of a backbone depend on, as plain values: its structure and a digest of its weights."""
    weights = hashlib.blake2b(digest_size=16)
    for name, value in sorted(backbone.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return {
        "backbone": backbone.name,
        "levels": backbone.levels,
        "channels": backbone.channels,
        "grid": backbone.grid,
        "structure": hashlib.blake2b(repr(backbone.model).encode(), digest_size=16).hexdigest(),
        "weights": weights.hexdigest(),
    }


def warm_up_and_decay(optimizer: Optimizer, *, total_steps: int, fraction: float) -> LRScheduler:
    """Raises the learning rate from 1/25 of itself over `fraction` of all steps, then lowers it to 0 by a cosine.

    Raises InputError for a `fraction` outside (0, 1].
    """
    _check_fraction(fraction)
    steps = max(total_steps, 2)
    if fraction * steps in (1, steps):  # OneCycleLR divides by zero where one of its phases has a single step
        fraction = min(fraction + 1e-9, 1 - 1e-9)
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, rates, total_steps=steps, pct_start=fraction, cycle_momentum=False)


def drop_after(optimizer: Optimizer, *, total_steps: int, fraction: float, gamma: float) -> LRScheduler:
    """Multiplies the learning rate by `gamma` once, after `fraction` of all steps (800 of 1000 epochs, Sec. 4.2).

    Raises InputError for a `fraction` outside (0, 1] and a `gamma` that is no number of at least 0.
    """
    _check_fraction(fraction)
    if not _is_number(gamma) or not gamma >= 0:
        raise InputError(f"schedule.gamma={gamma}: expected a number of at least 0, such as 0.1")
    return MultiStepLR(optimizer, milestones=[max(1, round(fraction * total_steps))], gamma=gamma)


def _check_fraction(fraction: object) -> None:
    if not _is_number(fraction) or not 0 < fraction <= 1:
        raise InputError(f"schedule.fraction={fraction}: expected a share of all steps, above 0 and at most 1")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
