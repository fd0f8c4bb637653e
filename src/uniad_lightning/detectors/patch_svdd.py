"""Patch-SVDD (Yi and Yoon 2020, arXiv 2006.16067): how far each patch is from the nearest one of the train images.

Written without its program. An encoder learns from two tasks: patches that overlap are near each other, and of two
neighbouring patches it guesses where the second lies. Departures: in the unified case one mean image and one bank of
patches are those of all categories; the weight of the first task is one for all, where the paper tunes it for each
category. Colour and noise change the neighbours alone, and weights start larger (`models.patch_svdd`).
"""

import math
from collections.abc import Callable, Iterator
from typing import cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.one_pass import gathered
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.dense_patches import spread
from uniad_lightning.models.initialization import check_above, check_counts
from uniad_lightning.models.memory_bank import MemoryBank
from uniad_lightning.models.patch_svdd import (
    SIZES,
    DirectionClassifier,
    HierarchicalEncoder,
    cut,
    neighbors,
    shifted,
)
from uniad_lightning.randomness import draw, key
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, Size, pair

_NOISE = 0.02  # deviation of the colour of a neighbour, and of each of its pixels; images are in [0, 1]


class PatchSVDD(AnomalyModule):
    """The anomaly map is the product over two sizes of patches of the distance to the nearest train patch.

    At each pixel the distances of the patches that cover it are averaged. `stride` is that of patches of 64
    and of 32 pixels, for the map and for the train images, of which at most `max_patches` of each size are kept. Each
    image of a batch gives `pairs` pairs of patches for each task and size. The image score is the maximum of the map.
    """

    paper_name = "PSVDD"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    mean_image: Tensor
    centered: Tensor

    def __init__(
        self,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        image_size: int | list[int],
        dim: int,
        width: int,
        pairs: int,
        svdd_weight: float,
        stride: int | list[int],
        max_patches: int | None,
        half: bool,
        megabytes: float,
    ):
        super().__init__(score=ImageScore(kind="max", window=1), seed=seed)
        self.image_size = pair(image_size, "data.image_size")
        self.stride = pair(stride, "model.stride")
        check_counts({"pairs": pairs} | ({} if max_patches is None else {"max_patches": max_patches}))
        check_above({"svdd_weight": svdd_weight}, inclusive=True)
        if any(one % 2 for one in self.stride):
            raise InputError(f"model.stride={list(self.stride)}: the encoder steps by 2 pixels; expected even numbers")
        self.encoder = HierarchicalEncoder(dim=dim, width=width)
        self.classifiers = nn.ModuleList(DirectionClassifier(dim=dim) for _ in SIZES)
        self.banks = nn.ModuleList(MemoryBank(channels=dim, neighbors=2, half=half, megabytes=megabytes) for _ in SIZES)
        self.register_buffer("mean_image", torch.zeros(3, *self.image_size))
        self.register_buffer("centered", torch.tensor(False))
        self.pairs, self.svdd_weight, self.max_patches = pairs, svdd_weight, max_patches
        self.optimizer, self.schedule = optimizer, schedule

    def _banks(self) -> list[MemoryBank]:
        return [cast(MemoryBank, bank) for bank in self.banks]

    def parts(self) -> dict[str, nn.Module]:
        """The encoder, which Table A7 counts alone, and what only the training needs."""
        return {"encoder": self.encoder, "classifiers": self.classifiers}

    def counted(self, batch: Batch) -> object:
        """The encoder: the search depends on the number of train images."""
        return self.encoder(batch["image"], self.stride)

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image without room for two patches, or with a rest that no patch covers."""
        super().check(image_size)
        if min(image_size) < 2 * SIZES[0]:
            raise InputError(f"data.image_size={list(image_size)}: Patch-SVDD needs at least {2 * SIZES[0]} pixels")
        for size, stride in zip(SIZES, self.stride, strict=True):
            if stride > size or any((side - size) % stride for side in image_size):
                raise InputError(
                    f"model.stride={list(self.stride)}: patches of {size} pixels at a stride of {stride} do not cover "
                    f"data.image_size={list(image_size)}; expected a stride that divides the side less {size}"
                )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Both tasks for both sizes of patches, the first weighted by `svdd_weight`."""
        for bank in self._banks():
            bank.clear()  # its patches are not those of the weights any more
        images = batch["image"] - self.mean_image
        parts: dict[str, Tensor] = {}
        for size, classifier in zip(SIZES, self.classifiers, strict=True):
            parts[f"direction_{size}"] = self.direction_loss(images, classifier, size)
            parts[f"svdd_{size}"] = self.svdd_loss(images, size)
        weights = {"direction": 1.0, "svdd": self.svdd_weight}
        loss = torch.stack([weights[name.partition("_")[0]] * part for name, part in parts.items()]).sum()
        return report_loss(self, loss, batch_idx=batch_idx, images=len(images), parts=parts)

    def direction_loss(self, images: Tensor, classifier: nn.Module, size: int) -> Tensor:
        """Cross entropy of where the second of two neighbouring patches lies, of centred images (B, 3, H, W)."""
        count = (len(images), self.pairs)
        corners, direction = neighbors(draw(torch.rand, torch.Size([*count, 5]), images.device), self.image_size, size)
        patches = cut(images, corners.flatten(1, 2), size).unflatten(1, (self.pairs, 2))  # (B, P, 2, 3, K, K)
        colour = draw(torch.randn, torch.Size([*count, 2, 3, 1, 1]), images.device)
        grain = draw(torch.randn, torch.Size([*count, 2, 3, size, size]), images.device)
        first, second = self._pairs(patches + _NOISE * (colour + grain))
        return F.cross_entropy(classifier(first - second).float(), direction.flatten())

    def svdd_loss(self, images: Tensor, size: int) -> Tensor:
        """Mean distance of patches that nearly overlap, of centred images (B, 3, H, W)."""
        uniform = draw(torch.rand, torch.Size([len(images), self.pairs, 3]), images.device)
        corners = shifted(uniform, self.image_size, size)
        first, second = self._pairs(cut(images, corners.flatten(1, 2), size).unflatten(1, (self.pairs, 2)))
        return (first - second).float().norm(dim=1).mean()

    def _pairs(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B * P, D) of the first and the second of pairs of patches (B, P, 2, 3, K, K)."""
        first, second = self.encoder.embed(patches.flatten(0, 2)).unflatten(0, (-1, 2)).unbind(dim=1)
        return first, second

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Product of the distances of both sizes of patches (B, H, W), at least 0."""
        found = self.encoder(batch["image"] - self.mean_image, self.stride)
        maps = []
        for embeddings, bank, size, stride in zip(found, self._banks(), SIZES, self.stride, strict=True):
            distances = bank(embeddings.flatten(2).transpose(1, 2)).unflatten(1, embeddings.shape[2:])  # (B, h, w)
            maps.append(spread(distances, distances.new_ones(size, size), stride))
        return math.prod(maps[1:], start=maps[0])

    def on_train_start(self) -> None:
        """Take the mean of the train images; a resumed run finds it in its checkpoint."""
        if self.centered:
            return
        total = torch.zeros_like(self.mean_image, dtype=torch.float64 if self.device.type == "cpu" else torch.float32)
        for batch in self._train_batches():
            total += batch["image"].sum(dim=0)
        if self.trainer.world_size > 1:
            dist.all_reduce(total)
        self.mean_image.copy_(total / len(self.data.splits.train))
        self.centered.fill_(True)

    def on_train_end(self) -> None:
        """Put the train images' patches into the banks, when the weights change no more."""
        self._fill_banks()

    def on_validation_epoch_start(self) -> None:
        """The same for an evaluation while training."""
        self._fill_banks()
        super().on_test_epoch_start()

    def on_test_epoch_start(self) -> None:
        """Refuse a detector without patches."""
        self._refuse_empty()
        super().on_test_epoch_start()

    def prepare(self) -> None:
        """Refuse a detector without patches."""
        self._refuse_empty()

    def _refuse_empty(self) -> None:
        if not all(len(bank.patches) for bank in self._banks()):
            raise InputError(
                "ckpt_path: is from within a training of Patch-SVDD, which keeps the patches of the train images at "
                "its end; give the last checkpoint, or continue the training from this one"
            )

    @torch.no_grad()
    def _fill_banks(self) -> None:
        """Fill both banks with the patches of all train images in order, the same on every process."""
        count = len(self.data.splits.train)
        kept: list[list[Tensor]] = [[] for _ in SIZES]
        index = torch.empty(0, dtype=torch.int64, device=self.device)
        for batch in self._train_batches():
            found = self.encoder(batch["image"] - self.mean_image, self.stride)
            for embeddings, parts in zip(found, kept, strict=True):
                parts.append(embeddings.float().flatten(2).transpose(1, 2))  # (B, N, D)
            index = torch.cat([index, batch["index"]])
        for bank, parts, size in zip(self._banks(), kept, SIZES, strict=True):
            patches = gathered(torch.cat(parts), index, self.trainer.world_size).flatten(0, 1)
            bank.clear()
            chosen = self._chosen(len(patches), size).to(patches.device)
            bank.append(patches[chosen], chosen // (len(patches) // count))  # whose owner is the train image

    def _chosen(self, count: int, size: int) -> Tensor:
        """Which of that many patches are kept, in order; drawn by the seed where there are more than `max_patches`."""
        if self.max_patches is None or count <= self.max_patches:
            return torch.arange(count)
        generator = torch.Generator().manual_seed(key("patches", self.seed, size))
        return torch.randperm(count, generator=generator)[: self.max_patches].sort().values

    def _train_batches(self) -> Iterator[Batch]:
        """This process's part of the train images as they are, in eval batches on the device."""
        dataset = self.data.dataset(self.data.splits.train)
        own = range(self.global_rank, len(self.data.splits.train), self.trainer.world_size)
        for start in range(0, len(own), self.data.eval_batch_size):
            batch = dataset.collate([dataset[i] for i in own[start : start + self.data.eval_batch_size]])
            yield {"image": batch["image"].to(self.device), "index": batch["index"].to(self.device)}

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over the encoder and both classifiers."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)
