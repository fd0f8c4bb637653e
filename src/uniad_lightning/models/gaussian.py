"""One Gaussian of image embeddings, its covariance shrunk as Ledoit and Wolf (2004) do, and distances to it."""

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError


class Gaussian(nn.Module):
    """Features (B, C, h, w), whose mean over the cells is the embedding of an image, -> its Mahalanobis distance (B,).

    The state holds `mean` (C,), `whitening` (C, C), the inverse of the covariance's lower Cholesky factor, and whether
    both are `fitted`; before that they are zero and the identity.
    """

    mean: Tensor
    whitening: Tensor
    fitted: Tensor

    def __init__(self, *, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("whitening", torch.eye(channels))
        self.register_buffer("fitted", torch.tensor(False))

    @torch.no_grad()
    def fit(self, embeddings: Tensor) -> None:
        """Take mean and covariance of `embeddings` (n, C).

        Raises InputError for fewer than three, of which nothing can be said about the covariance's error, and where all
        are alike.
        """
        if len(embeddings) < 3:
            raise InputError(f"data: train images are {len(embeddings)}, too few for a covariance; expected at least 3")
        samples = embeddings.double().cpu()  # not every device has float64
        mean, covariance = samples.mean(dim=0), ledoit_wolf(samples)
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if failed or not factor.isfinite().all():
            raise InputError("all train images have the same embedding: the training has diverged; lower optimizer.lr")
        eye = torch.eye(len(mean), dtype=torch.float64)
        self.mean.copy_(mean)
        self.whitening.copy_(torch.linalg.solve_triangular(factor, eye, upper=False))
        self.fitted.fill_(True)

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> Mahalanobis distance (B,) of the mean over the cells, at least 0."""
        return self._white(features).norm(dim=1)

    def contributions(self, features: Tensor) -> Tensor:
        """What each cell adds to the squared distance, (B, h, w): their mean over the cells is that square.

        The embedding being a mean, the square's gradient is the same in every cell; a contribution is its product with
        the cell's deviation from the Gaussian's mean. That is Grad-CAM (Selvaraju et al. 2017, Eq. 1 and 2) of the
        squared distance, up to a constant factor, measured from the mean and without the final ReLU.
        """
        gradient = self._white(features) @ self.whitening  # (B, C), half of the square's by the embedding
        return torch.einsum("bchw,bc->bhw", features.float() - self.mean[:, None, None], gradient)

    def _white(self, features: Tensor) -> Tensor:
        """Embeddings shifted and scaled so that the Gaussian is standard, (B, C)."""
        return (features.float().mean(dim=(2, 3)) - self.mean) @ self.whitening.T


def ledoit_wolf(samples: Tensor) -> Tensor:
    """The covariance (C, C) of samples (n, C) float64, shrunk towards a multiple of the identity.

    The share of the identity is the one of least expected squared error (Ledoit and Wolf 2004), as
    `sklearn.covariance.ledoit_wolf` has it.
    """
    count, size = samples.shape
    centred = samples - samples.mean(dim=0)
    covariance = centred.T @ centred / count
    scale = covariance.diagonal().mean()
    target = scale * torch.eye(size, dtype=samples.dtype)
    apart = (covariance - target).square().sum()
    # Mean squared distance of one sample's own outer product from the covariance, over n.
    error = (centred.square().sum(dim=1).square().mean() - covariance.square().sum()) / count
    share = (error / apart).clamp(0, 1) if apart > 0 else torch.zeros_like(apart)
    return (1 - share) * covariance + share * target
