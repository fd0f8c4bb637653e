"""PaDiM (Defard et al. 2020): at each place of the grid a Gaussian of good features, and the distance to it.

As the paper has it but for one thing: in the unified case the Gaussians are those of all categories together, which is
what the paper of UniAD compares with.
"""

import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from uniad_lightning.detectors.one_pass import OnePass
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.gaussian_grid import GaussianGrid
from uniad_lightning.models.initialization import check_above
from uniad_lightning.scoring import ImageScore, check_reach, smooth
from uniad_lightning.types import Batch, pair


class PadimDetector(OnePass):
    """Fits a Gaussian to good features at each cell of `grid`; the anomaly map is the Mahalanobis distance to it.

    `dim` of the backbone's channels are used, drawn by `seed`; None: as many as in the paper (`paper_dim`).
    `regularization` is added to the covariances' diagonal.
    The map is resized to `image_size` and smoothed by a Gaussian of `sigma` pixels. `megabytes` bounds the memory of a
    computation beside its result.
    """

    paper_name = "PaDiM"

    def __init__(
        self,
        *,
        backbone: Backbone,
        seed: int,
        grid: int | list[int],
        image_size: int | list[int],
        dim: int | None,
        regularization: float,
        sigma: float,
        megabytes: float,
    ):
        score = ImageScore(kind="max", window=1)  # the largest value of the map
        super().__init__(backbone=backbone, score=score, standardize=False, seed=seed)
        self.image_size = pair(image_size, "data.image_size")
        check_above({"sigma": sigma}, least=0, inclusive=True)
        check_reach(sigma, self.image_size)
        self.sigma = sigma
        channels = sum(backbone.channels)
        self.gaussians = GaussianGrid(
            channels=channels, grid=grid, dim=paper_dim(channels) if dim is None else dim,
            regularization=regularization, seed=seed, megabytes=megabytes,
        )  # fmt: skip

    @property
    def fitted(self) -> int:
        """Numbers of all means and covariances."""
        return self.gaussians.num_parameters

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Smoothed Mahalanobis distances (B, H, W) at the size of the image, at least 0."""
        distances = self.gaussians(self.features(batch))[:, None]  # (B, 1, h, w)
        full = F.interpolate(distances, size=self.image_size, mode="bilinear", align_corners=False)[:, 0]
        return smooth(full, self.sigma)

    def on_train_start(self) -> None:
        """Refuse a training on fewer images than a covariance needs."""
        if len(self.data.splits.train) < 2:
            raise InputError("data: 1 train image, of which there is no covariance; expected at least 2")

    def collect(self, batch: Batch) -> None:
        """Add a batch to the sums."""
        if len(batch["index"]):
            self.gaussians.update(self.features(batch))

    def finish(self) -> None:
        """Add up the sums of all processes, and take means and covariances from them."""
        if self.trainer.world_size > 1:
            for part in self.gaussians.sums():
                dist.all_reduce(part)
        self.gaussians.finish()


def paper_dim(channels: int) -> int:
    """How many of a backbone's `channels` are used: 550 of WideResNet-50's 1792, 100 of ResNet-18's 448."""
    return 550 if channels >= 1792 else min(100, channels)
