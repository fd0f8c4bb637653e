"""InTra (Pirnay and Chai 2022, arXiv 2104.13897): every patch of an image is painted anew from those around it.

As the paper has it, but for these: an epoch has each image once, with `windows` windows of it, drawn in the step;
training ends after a number of epochs and not by a validation loss; the weights of the two similarities, the learning
rate's schedule and the first weights are ours. There is no layer norm after the last block.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.cached_features import statistics_batches
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.gradient_similarity import gradient_similarity
from uniad_lightning.models.initialization import check_above, check_counts
from uniad_lightning.models.intra import (
    InpaintingTransformer,
    cut_patches,
    join_patches,
    surrounding_windows,
    window_places,
)
from uniad_lightning.models.structural_similarity import ssim
from uniad_lightning.precision import in_float32
from uniad_lightning.randomness import draw
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, Size, pair


class InTra(AnomalyModule):
    """The anomaly map is how unlike an image's edges those of the painted one are, less the mean of the train images.

    Patches have `patch_size` pixels a side, windows `window` patches; `blur` is the side of the mean filter over the
    map. The loss is MSE + `gradient_weight` (1 - MSGMS) + `structure_weight` (1 - SSIM) of painted patches; pixels are
    in [0, 1]. The image score is the map's maximum. `windows_at_once` of each image are inspected together.
    """

    paper_name = "InTra"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    mean_map: Tensor
    places: Tensor
    own: Tensor

    def __init__(
        self,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        image_size: int | list[int],
        patch_size: int,
        window: int,
        hidden_dim: int,
        num_heads: int,
        num_layers: int,
        windows: int,
        windows_at_once: int,
        gradient_weight: float,
        structure_weight: float,
        blur: int,
    ):
        super().__init__(score=ImageScore(kind="max", window=1), seed=seed)
        check_counts({"windows": windows, "windows_at_once": windows_at_once})
        check_above({"gradient_weight": gradient_weight, "structure_weight": structure_weight}, inclusive=True)
        self.image_size = pair(image_size, "data.image_size")
        self.grid = grid_of(self.image_size, patch_size=patch_size, window=window)
        check_odd(blur)
        self.patch_size, self.window, self.windows, self.windows_at_once = patch_size, window, windows, windows_at_once
        self.gradient_weight, self.structure_weight, self.blur = gradient_weight, structure_weight, blur
        self.network = InpaintingTransformer(
            grid=self.grid, window=window, pixels=3 * patch_size**2, hidden_dim=hidden_dim, num_heads=num_heads,
            num_layers=num_layers,
        )  # fmt: skip
        self.register_buffer("mean_map", torch.zeros(self.image_size))
        places, own = surrounding_windows(self.grid, window)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("own", own, persistent=False)
        self.optimizer, self.schedule = optimizer, schedule

    def check(self, image_size: Size) -> None:
        """Raises InputError for images of another size than the positions are for."""
        super().check(image_size)
        if tuple(image_size) != self.image_size:
            raise InputError(f"data.image_size={list(image_size)}: expected {list(self.image_size)}, as trained")

    def draw_windows(self, count: int) -> tuple[Tensor, Tensor]:
        """Random windows of `count` images: places (B, W, L*L), and which of them is masked (B, W)."""
        numbers = draw(torch.rand, torch.Size((count, self.windows, 3)), self.device)  # [0, 1)
        free = [side - self.window + 1 for side in self.grid]
        choices = torch.tensor([*free, self.window**2], device=self.device)
        row, column, masked = (numbers * choices).long().unbind(dim=2)
        return window_places(row, column, window=self.window, width=self.grid[1]), masked

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of the patches that were painted."""
        loss, parts = self.losses(batch["image"])
        return report_loss(self, loss, batch_idx=batch_idx, images=len(batch["image"]), parts=parts)

    def losses(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of images (B, 3, H, W) in windows that are drawn, and its three parts."""
        patches = cut_patches(image, self.patch_size)  # (B, N, P)
        places, masked = self.draw_windows(len(patches))
        images = torch.arange(len(patches), device=self.device)[:, None]
        seen = patches[images[..., None], places].flatten(0, 1)  # (S, L*L, P)
        target = patches[images, places.gather(2, masked[..., None])[..., 0]].flatten(0, 1)  # (S, P)
        painted = self.network(seen, places.flatten(0, 1), masked.flatten()).float()
        first, second = (part.unflatten(1, (3, self.patch_size, self.patch_size)) for part in (painted, target))
        parts = {
            "mse": F.mse_loss(painted, target),
            "msgms": (1 - gradient_similarity(first, second)).mean(),
            "ssim": (1 - ssim(first, second)).mean(),
        }
        loss = parts["mse"] + self.gradient_weight * parts["msgms"] + self.structure_weight * parts["ssim"]
        return loss, parts

    def inpaint(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) with each patch painted from those around it."""
        patches = cut_patches(image, self.patch_size)  # (B, N, P)
        painted = []
        for places, own in zip(
            self.places.split(self.windows_at_once), self.own.split(self.windows_at_once), strict=True
        ):
            seen = patches[:, places].flatten(0, 1)  # (B * n, L*L, P)
            where, which = (part.expand(image.shape[0], *part.shape).flatten(0, 1) for part in (places, own))
            painted.append(self.network(seen, where, which).unflatten(0, (-1, len(places))))
        return join_patches(torch.cat(painted, dim=1), self.grid, self.patch_size)

    def dissimilarity(self, image: Tensor) -> Tensor:
        """Maps (B, H, W) in [0, 1): one less the similarity of gradients, averaged over `blur` x `blur` pixels."""
        maps = 1 - gradient_similarity(image, self.inpaint(image).float())
        blurred = F.avg_pool2d(maps[:, None], self.blur, stride=1, padding=self.blur // 2, count_include_pad=False)
        return blurred[:, 0]

    def anomaly_map(self, batch: Batch) -> Tensor:
        """What `dissimilarity` (B, H, W) is above the mean of the train images; below it is negative."""
        return self.dissimilarity(batch["image"]) - self.mean_map

    @torch.no_grad()
    def take_mean_map(self) -> None:
        """Keep the mean of the train images' maps; each process takes all of them, so that it is the same."""
        total, count = torch.zeros(self.image_size, dtype=torch.float64, device="cpu"), len(self.data.splits.train)
        with in_float32(self.device):
            for batch in statistics_batches(self.data, self.device, count=count):
                total += self.dissimilarity(batch["image"]).sum(dim=0).double().cpu()
        self.mean_map.copy_(total / count)

    def on_train_end(self) -> None:
        """Take the mean map of the last weights, before they are saved and evaluated."""
        self.take_mean_map()

    def on_validation_epoch_start(self) -> None:
        """Take the mean map of the weights so far, which needs a pass over the train images."""
        self.take_mean_map()
        self.on_test_epoch_start()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over the network."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)


def grid_of(image_size: Size, *, patch_size: int, window: int) -> Size:
    """The patches of an image, (height, width); InputError for a patch or a window that does not fit in it."""
    check_counts({"patch_size": patch_size}, least=2)
    check_counts({"window": window}, least=2)
    if any(side % patch_size for side in image_size):
        raise InputError(f"data.image_size={list(image_size)}: expected multiples of model.patch_size={patch_size}")
    height, width = (side // patch_size for side in image_size)
    if window > min(height, width):
        raise InputError(
            f"model.window={window}: larger than the {height} x {width} patches of an image; lower it or "
            f"model.patch_size={patch_size}"
        )
    return height, width


def check_odd(blur: int) -> None:
    """Raises InputError where the side of the mean filter is not an odd number of pixels."""
    if not isinstance(blur, int) or blur < 1 or blur % 2 == 0:
        raise InputError(f"model.blur={blur}: expected an odd number of pixels")
