"""VT-ADL (Mishra et al. 2021, arXiv 2104.10036): how unlikely the encoding of each patch is, by a mixture of Gaussians.

Sizes and values that the paper leaves open are those of the authors' code, pankajmishra000/VT-ADL (MIT). What departs
from it: the likelihood is that of the mixture (`models.vt_adl.MixtureDensity`), the last weights are used and not those
of the lowest train loss, and images may be of another size than 512 pixels.
"""

from collections.abc import Callable

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.optimization import optimize, report_loss
from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_above, check_counts
from uniad_lightning.models.intra import cut_patches
from uniad_lightning.models.structural_similarity import ssim
from uniad_lightning.models.vt_adl import SIDE, Capsules, Decoder, MixtureDensity, VisionTransformer
from uniad_lightning.randomness import draw
from uniad_lightning.scoring import ImageScore, check_reach, smooth, upsample
from uniad_lightning.types import Batch, Size, pair


class VTADL(AnomalyModule):
    """The anomaly map is the negative log-likelihood of each of 8 x 8 patches, resized and smoothed by `sigma` pixels.

    The loss is 5 MSE - 0.5 SSIM of the decoded image and the negative log-likelihood of the tokens, summed over an
    image; `noise` is the deviation of what is added to tokens in training. Images are in [0, 1]. The image score is the
    map's maximum. The decoder only trains the transformer, and is not run at inference.
    """

    paper_name = "VT-ADL"
    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        *,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[..., LRScheduler],
        seed: int,
        image_size: int | list[int],
        hidden_dim: int,
        num_heads: int,
        feedforward_dim: int,
        num_layers: int,
        gaussians: int,
        noise: float,
        sigma: float,
    ):
        super().__init__(score=ImageScore(kind="max", window=1), seed=seed)
        self.image_size = pair(image_size, "data.image_size")
        check_sizes(self.image_size, hidden_dim=hidden_dim, num_heads=num_heads)
        check_counts({"feedforward_dim": feedforward_dim, "num_layers": num_layers, "gaussians": gaussians})
        check_above({"noise": noise, "sigma": sigma}, inclusive=True)
        check_reach(sigma, self.image_size)
        self.noise, self.sigma = noise, sigma
        self.patch_size = self.image_size[0] // SIDE
        self.transformer = VisionTransformer(
            pixels=3 * self.patch_size**2, dim=hidden_dim, num_heads=num_heads, feedforward_dim=feedforward_dim,
            num_layers=num_layers,
        )  # fmt: skip
        self.density = MixtureDensity(dim=hidden_dim, count=gaussians)
        self.capsules = Capsules(numbers=SIDE * SIDE * hidden_dim)
        self.decoder = Decoder(image_size=self.image_size)
        self.optimizer, self.schedule = optimizer, schedule

    def parts(self) -> dict[str, nn.Module]:
        """The transformer, and what its tokens go to; at inference that is the density alone."""
        heads = {"density": self.density, "capsules": self.capsules, "decoder": self.decoder}
        return {"transformer": self.transformer, "density, capsules, decoder": nn.ModuleDict(heads)}

    def check(self, image_size: Size) -> None:
        """Raises InputError for images of another size than the patches are for."""
        super().check(image_size)
        if tuple(image_size) != self.image_size:
            raise InputError(f"data.image_size={list(image_size)}: expected {list(self.image_size)}, as trained")

    def encode(self, image: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> tokens (B, 64, E)."""
        return self.transformer(cut_patches(image, self.patch_size))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch."""
        loss, parts = self.losses(batch["image"])
        return report_loss(self, loss, batch_idx=batch_idx, images=len(batch["image"]), parts=parts)

    def losses(self, image: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of images (B, 3, H, W) with noise on their tokens, and its three parts."""
        tokens = self.encode(image)
        tokens = tokens + self.noise * draw(torch.randn, tokens.shape, self.device)
        decoded = self.decoder(self.capsules(tokens)).float()
        parts = {
            "mse": (decoded - image).square().mean(),
            "ssim": ssim(decoded, image).mean(),
            "nll": self.density(tokens).float().sum(dim=1).mean(),
        }
        loss = 5 * parts["mse"] - 0.5 * parts["ssim"] + parts["nll"]
        return loss, parts

    def anomaly_map(self, batch: Batch) -> Tensor:
        """Smoothed negative log-likelihoods (B, H, W)."""
        cells = self.density(self.encode(batch["image"])).unflatten(1, (SIDE, SIDE))
        return smooth(upsample(cells, self.image_size), self.sigma)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """One optimizer over all."""
        steps = self.data.steps.total_steps
        return optimize(self.parameters(), optimizer=self.optimizer, schedule=self.schedule, total_steps=steps)


def check_sizes(image_size: Size, *, hidden_dim: int, num_heads: int) -> None:
    """Raises InputError for an image that is not a square of 8 x 8 patches, and a width that cannot be divided."""
    height, width = image_size
    if height != width or height % SIDE or not 2 * SIDE <= height <= 512:
        raise InputError(
            f"data.image_size={[height, width]}: VT-ADL takes squares, multiples of 8 from 16 to 512 pixels"
        )
    check_counts({"hidden_dim": hidden_dim, "num_heads": num_heads})
    if hidden_dim % num_heads:
        raise InputError(f"model.hidden_dim={hidden_dim}: expected a multiple of model.num_heads={num_heads}")
