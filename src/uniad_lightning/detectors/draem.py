"""DRAEM (Zavrtanik et al. 2021, arXiv 2108.07610): one network paints synthetic defects over, another marks them.

As the paper has it, but for the textures of the defects (`data.defects`, see there) and for the train images, which are
not turned. Values that the paper leaves open are those of its implementation, VitjanZ/DRAEM.
"""

from collections.abc import Callable

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.draem import DiscriminativeNetwork, ReconstructiveNetwork, start_as_draem
from uniad_lightning.models.initialization import check_above, check_counts
from uniad_lightning.models.structural_similarity import ssim
from uniad_lightning.scoring import ImageScore
from uniad_lightning.types import Batch, Size

_STRIDE = 32  # of the deepest stage
_SMOOTH = 1e-5  # probabilities are kept this far from 0 and 1


class DRAEM(AnomalyModule):
    """The anomaly map is the probability of a defect at each pixel, from the image beside its reconstruction.

    The loss is that of the reconstruction of the good image, L2 + (1 - SSIM), and a focal loss of
    `focal_gamma` at each pixel. Images are in [0, 1]: the normalisation of ImageNet would ruin it.
    """

    paper_name = "DRAEM"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        *,
        score: ImageScore,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        reconstructive_width: int,
        discriminative_width: int,
        focal_gamma: float,
    ):
        super().__init__(score=score, seed=seed)
        check_counts({"reconstructive_width": reconstructive_width, "discriminative_width": discriminative_width})
        check_above({"focal_gamma": focal_gamma}, least=0, inclusive=True)
        self.reconstruct = ReconstructiveNetwork(channels=3, width=reconstructive_width)
        self.discriminate = DiscriminativeNetwork(channels=6, width=discriminative_width)
        start_as_draem(self)
        self.optimizer, self.schedule, self.focal_gamma = optimizer, schedule, focal_gamma

    def parts(self) -> dict[str, nn.Module]:
        """Both networks; Table A7 counts the first alone."""
        return {"reconstructive": self.reconstruct, "discriminative": self.discriminate}

    def check(self, image_size: Size) -> None:
        """Raises InputError for an image that the networks cannot halve five times."""
        super().check(image_size)
        if any(side % _STRIDE for side in image_size):
            raise InputError(
                f"data.image_size={list(image_size)}: DRAEM halves images five times; give multiples of 32"
            )

    def fill_cache(self, data: UnifiedDataModule, stage: str) -> None:
        """Nothing is kept; InputError where a training has no synthetic defects to learn from."""
        super().fill_cache(data, stage)
        if stage == "fit" and data.defects is None:
            raise InputError("data.defects=null: DRAEM learns from synthetic defects; give data/defects=perlin")

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) -> their reconstruction, and scores (B, 2, H, W) before the softmax."""
        painted = self.reconstruct(image)
        return painted, self.discriminate(torch.cat([painted, image], dim=1))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The sum of the three losses, on images with a synthetic defect or none."""
        damaged, mask = batch["damaged"][:, 0], batch["damage"][:, 0]
        painted, scores = self(damaged)
        parts = {
            "l2": (painted - batch["image"]).square().mean(),
            "ssim": (1 - ssim(painted.float(), batch["image"])).mean(),
            "focal": focal_loss(scores.float(), mask, self.focal_gamma),
        }
        loss = parts["l2"] + parts["ssim"] + parts["focal"]
        return report_loss(self, loss, batch_idx=batch_idx, images=len(damaged), parts=parts)

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Probabilities of a defect (B, H, W), in [0, 1]."""
        return self(batch["image"])[1].softmax(dim=1)[:, 1]

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over both networks."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)


def focal_loss(scores: Tensor, mask: Tensor, gamma: float) -> Tensor:
    """Mean over pixels of -(1 - p)^gamma log p, p the probability of the true class (Lin et al. 2017, Eq. 4).

    `scores` (B, 2, H, W) before the softmax, `mask` (B, H, W) bool.
    """
    truth = torch.stack([~mask, mask], dim=1)  # (B, 2, H, W)
    right = torch.where(truth, scores.softmax(dim=1), 0.0).sum(dim=1).clamp(_SMOOTH, 1 - _SMOOTH)
    return (-(1 - right).pow(gamma) * right.log()).mean()
