"""A memory bank of the features that a training has cached, tested beside its detector: is the network worth it?"""

from typing import Any

import lightning as L
import torch
from omegaconf import DictConfig
from torch import Tensor

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.selection import spread_over
from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.base import add_scored, metrics_for
from uniad_lightning.detectors.memory_bank import MemoryBankDetector
from uniad_lightning.errors import InputError, one_line, print_stderr
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics, Evaluation
from uniad_lightning.models.coreset import coreset
from uniad_lightning.types import Batch

MOST_IMAGES = 500  # of the train split
MOST_PATCHES = 100_000  # of a fine grid fewer images: the coreset takes seconds, not minutes
SHARE = 0.1  # of the patches, which the bank keeps


def wants_yardstick(cfg: DictConfig) -> bool:
    """Whether `cfg.yardstick` asks for one; with auto for own images, whose images no table of a paper tells about.

    Raises InputError for another value.
    """
    if cfg.yardstick == "auto":
        return "test_share" in (cfg.data.get("source") or {})
    if not isinstance(cfg.yardstick, bool):
        raise InputError(f"yardstick={cfg.yardstick}: expected auto, true or false")
    return cfg.yardstick


class Yardstick(L.Callback):
    """Tests a memory bank on the features that the tested detector computes; afterwards `evaluation` has its result.

    It stays None where there are no cached train features, no good or no defective test image, or several processes,
    and for methods of one pass, which are banks themselves or have far finer grids.
    """

    def __init__(self) -> None:
        self.evaluation: Evaluation | None = None
        self._bank: MemoryBankDetector | None = None
        self._metrics: AnomalyMetrics | None = None
        self._feature: Tensor | None = None  # (B, C, h, w) of the current batch
        self._hook: Any = None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fill the bank."""
        data: UnifiedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        labels = {record.label for record in data.splits.test}
        cached = trainer.world_size == 1 and "train" in data.cache.splits
        if not isinstance(pl_module, BackboneFeatures) or pl_module.one_pass or not cached or labels != {0, 1}:
            return
        try:
            self._bank = filled_bank(pl_module, data)
        except RuntimeError as error:  # of too little memory: an extra must not cost the results
            print_stderr(f"warning: no yardstick; {one_line(error)}")
            return
        self._metrics = metrics_for(data).to(pl_module.device)
        self._hook = pl_module.backbone.register_forward_hook(self._keep)

    def _keep(self, backbone: Any, images: Any, feature: Tensor) -> None:
        self._feature = feature.detach()

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Score the images of a batch by the bank."""
        if self._bank is None or self._metrics is None or not outputs:
            return
        data: UnifiedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        feature = batch.get("feature", self._feature)
        output = self._bank.inspect({"feature": feature}, framing=data.framing, size=data.map_size)  # type: ignore[typeddict-item]
        add_scored(self._metrics, output, batch)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute the result, and let the bank go."""
        if self._metrics is not None:
            self.evaluation = self._metrics.compute()
            self._hook.remove()
            self._bank = self._metrics = self._feature = None


@torch.no_grad()
def filled_bank(module: BackboneFeatures, data: UnifiedDataModule) -> MemoryBankDetector:
    """A bank of cached train features, standardised as `module` does, of images drawn evenly over the categories."""
    grid = module.backbone.grid
    bank = MemoryBankDetector(
        backbone=module.backbone, score=module.score, standardize=False, seed=module.seed, grid=list(grid),
        coreset=None, coreset_dim=128, reweight=False, neighbors=9, half=False, megabytes=64,
    )  # fmt: skip
    bank.standardize = module.standardize
    most = min(MOST_IMAGES, MOST_PATCHES // (grid[0] * grid[1])) // data.framing.count
    images = {record.image for record in spread_over(data.splits.train, max(most, 1))}
    chosen = [place for place, record in enumerate(data.splits.train) if record.image in images]
    split = data.cache.splits["train"]
    parts = [split.features(chosen[i : i + 64]).to(module.device).float() for i in range(0, len(chosen), 64)]
    patches = torch.cat([bank.patches(part).flatten(0, 1) for part in parts])  # (M, C)
    kept = coreset(patches, SHARE, seed=module.seed, progress=False, dim=128)
    bank.bank.append(patches[kept], torch.zeros_like(kept))
    return bank.to(module.device).eval()


def measured(trainer: L.Trainer) -> dict[str, dict[str, float]]:
    """The entry `yardstick` of metrics.json, its metrics in 0..1 as far as they are defined; empty without one."""
    done = [part.evaluation for part in trainer.callbacks if isinstance(part, Yardstick) and part.evaluation]  # type: ignore[attr-defined]
    if not done:
        return {}
    mean = done[0].mean
    numbers = {"image_auroc": mean.image_auroc, "pixel_auroc": mean.pixel_auroc}
    return {"yardstick": {name: value for name, value in numbers.items() if value == value}}
