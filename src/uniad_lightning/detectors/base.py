"""The Lightning side: what every detector shares, and the detector that reconstructs features."""

from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.tiling import Framing
from uniad_lightning.errors import InputError, complain
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics, Evaluation
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
