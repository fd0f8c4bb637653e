"""Uninformed Students (Bergmann et al. 2020, arXiv 1911.02357): students guess a teacher's descriptors of patches.

The teacher learns to describe patches as a backbone does, then the students learn to describe them as the teacher
does. With `teacher_images`, a folder such as ImageNet's, the teacher learns before the training and is kept for the
next one; without, in the first `teacher_share` of the steps, from the train images, which every user has. What departs
from the paper:

- Compactness is taken over the patches of each image (`compactness_loss`); one learning rate for both phases.
- A descriptor at every `stride`-th pixel, for speed; 1 is the paper's. One side of patches, which Table A7 counts; the
  paper also averages maps of 17, 33 and 65. The margin of the image is mirrored.
- Error and variance are scaled by their mean and deviation on train images rather than on a part held out.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.cached_features import statistics_batches
from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.dataset import InspectionDataset
from uniad_lightning.data.folder_images import folder_dataset
from uniad_lightning.detectors.backbone_features import BackboneFeatures
from uniad_lightning.detectors.distillation import Distillation
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fingerprint import fingerprint
from uniad_lightning.models.initialization import check_above, check_counts
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.models.uninformed_students import (
    PatchNetwork,
    Students,
    compactness_loss,
    crops,
    disagreement,
    triplet_loss,
)
from uniad_lightning.randomness import draw
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, Size, pair

_SHIFT = 4  # pixels by which the second patch of a triplet is moved at most
_NOISE = 0.1  # deviation of the noise on it


class UninformedStudents(BackboneFeatures):
    """The anomaly map is how far the mean of `students` is from the teacher, and how far they are from each other.

    Descriptors of patches of `patch` pixels are `width` numbers. `crops` patches of each image teach the teacher:
    squared distance of its decoded descriptor to the mean of the backbone's last level on that patch, plus the triplet
    loss times `metric_weight`, plus the compactness times `compactness_weight`. The image score is the map's maximum.
    """

    paper_name = "US"

    def __init__(
        self,
        *,
        backbone: Backbone,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        grid: int | list[int],
        patch: int,
        width: int,
        stride: int,
        students: int,
        teacher_share: float,
        crops: int,
        metric_weight: float,
        compactness_weight: float,
        teacher_images: str | None = None,
        teacher_steps: int = 10_000,
    ):
        super().__init__(backbone=backbone, score=ImageScore(kind="max", window=1), standardize=False, seed=seed)
        if backbone.trainable:
            raise InputError("backbone.trainable=true: the backbone of model=uninformed_students stays frozen")
        check_counts({"width": width, "students": students, "teacher_steps": teacher_steps})
        check_counts({"crops": crops}, least=2)
        check_above({"teacher_share": teacher_share})
        check_above({"metric_weight": metric_weight, "compactness_weight": compactness_weight}, inclusive=True)
        if teacher_share >= 1:
            raise InputError(f"model.teacher_share={teacher_share}: leaves the students no step; expected below 1")
        self.grid = pair(grid, "model.grid")  # of `features`
        self.teacher = PatchNetwork(patch=patch, width=width, stride=stride)
        self.decoder = nn.Linear(width, backbone.channels[-1])
        self.students = Students(PatchNetwork(patch=patch, width=width, stride=stride) for _ in range(students))
        self.descriptors, self.disagreements = Standardize(channels=width), Standardize(channels=2)
        self.optimizer, self.schedule = optimizer, schedule
        self.teacher_images, self.teacher_steps = teacher_images, teacher_steps
        self.teacher_share, self.crops = 0.0 if teacher_images else teacher_share, crops
        self.metric_weight, self.compactness_weight = metric_weight, compactness_weight

    def parts(self) -> dict[str, nn.Module]:
        """The teacher, the students, and what only the teacher's training needs."""
        training = nn.ModuleDict({"decoder": self.decoder, "backbone": self.backbone})
        return {"teacher": self.teacher, "students": self.students, "decoder and backbone": training}

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image that is smaller than a patch."""
        super().check(image_size)
        if min(image_size) < self.teacher.patch:
            raise InputError(
                f"data.image_size={list(image_size)}: smaller than model.patch={self.teacher.patch}; enlarge the image "
                "or lower the patch"
            )

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """No features are kept: patches are cut from the images. A teacher of `teacher_images` learns here."""
        data.cache.refuse("UninformedStudents works on patches of images, and needs more than their features")
        if stage == "fit" and self.teacher_images is not None and not self.taught:
            self._distil(folder_dataset(data, self.teacher_images, key="model.teacher_images"), data)

    def _distil(self, dataset: InspectionDataset, data: UnifiedDataModule) -> None:
        """Have a teacher of the images in `dataset`: the one that is kept, else a new one."""
        learning = nn.ModuleDict({"teacher": self.teacher, "decoder": self.decoder})
        distillation = Distillation(
            learning, loss=self._teacher_learns, optimizer=self.optimizer, steps=self.teacher_steps, seed=self.seed,
            batch_size=data.batch_size, num_workers=data.num_workers,
        )  # fmt: skip
        self.backbone.to(data.running_trainer.strategy.root_device)
        sizes = {"patch": self.teacher.patch, "width": self.decoder.in_features, "crops": self.crops}
        weights = {"metric": self.metric_weight, "compactness": self.compactness_weight}
        about = {**fingerprint(self.backbone), **sizes, **weights}
        distillation.fit(dataset, about=about, cache=data.cache, trainer=data.running_trainer)

    @property
    def taught(self) -> bool:
        """Whether the teacher has learnt, and its descriptors are standardised."""
        return bool(self.descriptors.fitted)

    def target(self, image: Tensor) -> Tensor:
        """The teacher's standardised descriptors (B, D, h, w) of images with their margin."""
        with torch.no_grad():
            return self.descriptors(self.teacher(image).movedim(1, -1)).movedim(-1, 1)

    def disagreement(self, image: Tensor) -> Tensor:
        """Error and variance of the students (B, h, w, 2) on images (B, 3, H, W)."""
        image = self.teacher.padded(image)
        target = self.target(image)
        return disagreement(self.students(image), target)

    def anomaly_map(self, batch: Batch) -> Tensor:
        """The sum of error and variance, each scaled by its mean and deviation on train images, (B, h, w)."""
        return self.disagreements(self.disagreement(batch["image"])).sum(dim=-1)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Standardise the descriptors once the teacher's share of the steps is over."""
        if not self.taught and self.data.steps.done >= self.teacher_share * self.data.steps.total:
            with torch.no_grad():
                self.descriptors.fit(
                    self.teacher(self.teacher.padded(image)).flatten(2).transpose(1, 2)
                    for image in self._train_images()
                )
        super().on_train_batch_start(batch, batch_idx)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the phase; networks that do not learn in it take part with zero, as several processes need."""
        image = batch["image"]
        parts = self._students_learn(image) if self.taught else self._teacher_learns(image)
        loss = sum(parts.values(), torch.zeros((), device=image.device))
        report_loss(self, loss.detach(), batch_idx=batch_idx, images=len(image), parts=parts)
        return loss + 0.0 * sum(parameter.sum() for parameter in self._idle())

    def _teacher_learns(self, image: Tensor) -> dict[str, Tensor]:
        count, size = len(image), self.teacher.patch
        places, shifts = (draw(torch.rand, torch.Size((count, self.crops, 2)), image.device) for _ in range(2))
        patches = crops(image, places, size)  # (B, K, 3, p, p)
        moved = (places + (2 * shifts - 1) * _SHIFT / max(*image.shape[-2:])).clamp(0, 1)
        near = crops(image, moved, size)
        near = near + _NOISE * draw(torch.randn, near.shape, image.device)
        described, other = (self._descriptors(part) for part in (patches, near))
        with torch.no_grad():
            known = self.backbone.pyramid(patches.flatten(0, 1))[-1].mean(dim=(2, 3)).unflatten(0, (count, -1))
        apart = (self.decoder(described).float() - known).square().sum(dim=-1)
        far = described.roll(1, dims=1)  # another patch of the image
        return {
            "distillation": apart.mean(),
            "metric": self.metric_weight * triplet_loss(described, other, far),
            "compactness": self.compactness_weight * compactness_loss(described),
        }

    def _descriptors(self, patches: Tensor) -> Tensor:
        """Of patches (B, K, 3, p, p), (B, K, D)."""
        return self.teacher(patches.flatten(0, 1))[..., 0, 0].float().unflatten(0, patches.shape[:2])

    def _students_learn(self, image: Tensor) -> dict[str, Tensor]:
        image = self.teacher.padded(image)
        target = self.target(image)
        apart = (self.students(image).float() - target).square().sum(dim=2)  # (M, B, h, w)
        return {"students": apart.mean(dim=(1, 2, 3)).sum()}

    def _idle(self) -> list[nn.Parameter]:
        """What does not learn in this phase."""
        idle = [self.teacher, self.decoder] if self.taught else [self.students]
        return [parameter for part in idle for parameter in part.parameters()]

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Without a gradient the optimizer leaves a parameter alone, where zero would still let it decay."""
        for parameter in self._idle():
            parameter.grad = None

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """After the last batch, take the statistics of error and variance, before the checkpoint is written."""
        if self.taught and self.data.steps.done >= self.data.steps.total:
            with torch.no_grad():
                self.disagreements.fit(self.disagreement(image).flatten(1, 2) for image in self._train_images())

    def _train_images(self) -> Iterator[Tensor]:
        """Up to 512 train images, (1, 3, H, W) each, the same on every process."""
        for batch in statistics_batches(self.data, self.device):
            yield from batch["image"].split(1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over teacher and students."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)
