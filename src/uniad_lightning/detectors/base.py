"""What every method shares: evaluation, prediction, and the questions that a method answers."""

from collections.abc import Iterable
from typing import ClassVar, NamedTuple

import lightning as L
import torch
from torch import Tensor, nn

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.images.tiling import Framing
from uniad_lightning.detectors.running_statistics import share_statistics
from uniad_lightning.errors import InputError, print_stderr
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics, Evaluation
from uniad_lightning.metrics.intervals import with_intervals
from uniad_lightning.precision import in_float32
from uniad_lightning.randomness import seed_step
from uniad_lightning.scoring import ImageScore, upsample
from uniad_lightning.types import Batch, Size


class Output(NamedTuple):
    """What a detector says of B images.

    Attributes:
        grid: anomaly maps (B, h, w) at the size that the method gives them, tiles put together.
        map: the same (B, H, W) at the size that is scored, what is ignored at the map's minimum.
        score: image scores (B,).
        descriptor: mean features (B, C), None of a method without.
    """

    grid: Tensor
    map: Tensor
    score: Tensor
    descriptor: Tensor | None


class AnomalyModule(L.LightningModule):
    """A detector of any method: evaluation, prediction and export are here, what differs is asked for.

    A subclass gives `anomaly_map` and, unless it has `one_pass`, `training_step` and `configure_optimizers`. The rest
    has defaults: `image_scores`, `features`, `parts`, `check`, `prepare`, `fill_cache`, and the class attributes below.
    Its constructor names what it takes of the configuration besides `model`: any of `backbone`, `loss`, `score`,
    `optimizer`, `schedule`, `standardize` and `seed` (`training.method`).

    After an evaluation `evaluation` holds its result, and `metrics` still holds what it was computed from.

    Attributes:
        one_pass: whether a training is one pass over the train images in order, none dropped.
        forgets: whether a training from a checkpoint forgets the categories that its data lacks.
        mean: per channel, what the input is shifted by.
        std: per channel, what the input is divided by.
        precisions: what `uniad export precision=` may be; empty: it cannot be exported.
        integer_parts: names of the submodules whose inner matrix products `precision=int8` makes integers of.
        paper_name: of the method in the tables of UniAD's paper.
    """

    one_pass: ClassVar[bool] = False
    forgets: ClassVar[bool] = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    integer_parts: ClassVar[tuple[str, ...]] = ()
    paper_name: ClassVar[str | None] = None

    def __init__(self, *, score: ImageScore, seed: int):
        super().__init__()
        self.score = score
        self.seed = seed
        self.metrics: AnomalyMetrics | None = None
        self.evaluation: Evaluation | None = None
        self.vanished_masks = 0

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Anomaly maps (B, h, w) float32 of any size up to the image's, larger = more anomalous."""
        raise NotImplementedError

    def image_scores(self, batch: Batch, maps: Tensor) -> Tensor:
        """Image scores (B,), larger = more anomalous, of the maps (B, H, W) at the size that is scored.

        `batch` holds what `anomaly_map` was given: where images are cut into T tiles, B * T of them in order.
        """
        return self.score(maps)

    def features(self, batch: Batch) -> Tensor | None:
        """Features (B, C, h, w) by which categories differ, where the method has some."""
        return None

    def parts(self) -> dict[str, nn.Module]:
        """The parts that have weights, in the order in which an image passes them; `uniad complexity` counts each."""
        return {"network": self}

    def counted(self, batch: Batch) -> object:
        """Runs what `uniad complexity` counts the operations of: the anomaly map, or the features of one pass."""
        return self.features(batch) if self.one_pass else self.anomaly_map(batch)

    def known_categories(self, trained: Iterable[str]) -> list[str]:
        """The categories that the detector knows after a training on those `trained`; a checkpoint keeps them."""
        return sorted(trained)

    @property
    def fitted(self) -> int:
        """Numbers fitted to the train images that are no parameters of the optimizer, known before there are any."""
        return 0

    def facts(self) -> dict[str, dict[str, float]]:
        """What metrics.json says of a training besides its results: numbers by group and name."""
        return {}

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image of (height, width) pixels that the method does not take."""
        self.score.check(image_size)

    def prepare(self) -> None:
        """Change what makes inference faster and is the same otherwise, once the weights are loaded."""

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Have the features of `data` in its cache as far as `stage` needs them; by default there are none to keep."""
        data.cache.refuse(f"{type(self).__name__} works on images, and has no features to keep")

    def setup(self, stage: str) -> None:
        """Called by Lightning before a fit and before a test."""
        self.fill_cache(self.data, stage)

    def inspect(self, batch: Batch, *, framing: Framing, size: Size) -> Output:
        """Inspect images, each one image or (B, T, 3, H, W) of `framing`'s tiles, their maps scored at `size`.

        Everything is computed in float32, also under autocast.
        """
        with in_float32(self.device):
            return self._inspect(batch, framing=framing, size=size)

    def _inspect(self, batch: Batch, *, framing: Framing, size: Size) -> Output:
        if "image" in batch and batch["image"].ndim == 5:
            batch = {**batch, "image": batch["image"].flatten(0, 1)}
        features = self.features(batch)
        if features is not None:
            batch = {**batch, "feature": features}
        maps = self.anomaly_map(batch)
        if maps.ndim != 3:
            raise InputError(f"{type(self).__name__}.anomaly_map: returned {tuple(maps.shape)}; expected (B, h, w)")
        grid = framing.stitch(maps.float())  # (B, h, w)
        full = upsample(grid, size)  # (B, H, W)
        ignored = framing.ignored(size)
        if ignored is not None:
            full = torch.where(ignored.to(full.device), full.amin(dim=(1, 2), keepdim=True), full)
        pooled = None if features is None else features.mean(dim=(2, 3)).unflatten(0, (-1, framing.count)).mean(dim=1)
        return Output(grid, full, self.image_scores(batch, full), pooled)

    @property
    def data(self) -> UnifiedDataModule:
        """The data module of the running trainer."""
        return self.trainer.datamodule  # type: ignore[attr-defined]

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Key all that is drawn in this step to (seed, epoch, step) and the sample."""
        epoch, step = divmod(self.data.steps.done, self.data.steps.per_epoch)
        seed_step(seed=self.seed, epoch=epoch, step=step, rank=self.global_rank)

    def on_test_epoch_start(self) -> None:
        """Start an evaluation of the whole test split."""
        if self.trainer.world_size > 1:
            share_statistics(self)
        self.metrics = metrics_for(self.data).to(self.device)
        self.vanished_masks = 0

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Score a batch in float32; for callbacks, `map` (B, H, W) at the mask's size and `score` (B,)."""
        if len(batch["index"]) == 0:
            return None
        with in_float32(self.device):
            return self._score(batch, self._running_metrics)

    def _score(self, batch: Batch, metrics: AnomalyMetrics) -> dict[str, Tensor]:
        framing = self.data.framing
        output = self.inspect(batch, framing=framing, size=self.data.map_size)
        self._refuse_not_finite(output.grid, batch)
        ignored = framing.ignored(self.data.map_size)
        if ignored is not None:
            batch["mask"] = batch["mask"] & ~ignored.cpu()  # callbacks see it, too
        add_scored(metrics, output, batch)
        marked = (batch["label"] == 1) & batch["has_mask"]
        unseen = marked.cpu() & ~batch["mask"].flatten(1).any(dim=1)
        self.vanished_masks += int(unseen.sum())
        return {"map": output.map, "score": output.score}

    def on_test_epoch_end(self) -> None:
        """Compute and log the metrics of the evaluation."""
        self.evaluation = self._running_metrics.compute()
        if self.trainer.testing:  # seconds, which each validation of a training would take as well
            self.evaluation = with_intervals(self.evaluation, self._running_metrics)
        vanished = torch.tensor(self.vanished_masks, device=self.device)
        self.vanished_masks = int(self.trainer.strategy.reduce(vanished, reduce_op="sum"))
        if self.vanished_masks and self.trainer.is_global_zero:
            size = " x ".join(map(str, self.data.map_size))
            print_stderr(f"warning: {self.vanished_masks} masks have no pixel left at {size}")
        for name, row in (("mean", self.evaluation.mean), ("pooled", self.evaluation.pooled)):
            numbers = {f"{name}/{key}": value for key, value in row._asdict().items() if key != "images"}
            self.log_dict(numbers, sync_dist=True, reduce_fx="max")  # all ranks have the same

    @property
    def _running_metrics(self) -> AnomalyMetrics:
        if self.metrics is None:
            raise RuntimeError("an evaluation has metrics from its start on; is on_test_epoch_start overridden?")
        return self.metrics

    def _refuse_not_finite(self, maps: Tensor, batch: Batch) -> None:
        bad = ~maps.isfinite().flatten(1).all(dim=1)
        if bad.any():
            image = self.data.splits.test[int(batch["index"][bad][0])].image
            raise InputError(
                f"{image}: its anomaly map is not finite; the weights have diverged, lower the learning rate"
            )

    on_validation_epoch_start = on_test_epoch_start
    validation_step = test_step
    on_validation_epoch_end = on_test_epoch_end


def metrics_for(data: UnifiedDataModule) -> AnomalyMetrics:
    """Empty metrics of the whole test split."""
    splits = data.splits
    return AnomalyMetrics(
        categories=splits.categories,
        num_images=len(splits.test),
        foreign=set(splits.categories) - {record.category for record in splits.train},
        ignored=data.framing.ignored(data.map_size),
    )


def add_scored(metrics: AnomalyMetrics, output: Output, batch: Batch) -> None:
    """Add what a detector says of a batch of test images to the `metrics`."""
    metrics.update(
        maps=output.grid,
        scores=output.score,
        masks=batch["mask"],
        has_mask=batch["has_mask"],
        labels=batch["label"],
        categories=batch["category"],
        indices=batch["index"],
    )
