"""Reconstruction losses, each with the anomaly map that goes with it (Eq. 4 and 5; appendix C.3, Eq. A1-A3).

`forward(feature, reconstruction)` is the scalar loss of tokens (B, N, C).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReconstructionLoss(nn.Module):
    """Base of the losses that `FeatureReconstruction` trains and scores with."""

    def anomaly_map(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """Distance of each token, (B, N), larger = more anomalous."""
        raise NotImplementedError


class MSELoss(ReconstructionLoss):
    """Mean squared error over batch, tokens and channels; the map is the L2 norm of the difference (Eq. 5).

    Eq. 4 sums over channels. The reference takes the mean, and its learning rate and gradient clip fit that.
    """

    def forward(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """Scalar loss of tokens (B, N, C)."""
        return F.mse_loss(reconstruction, feature)

    def anomaly_map(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """L2 distance of each token, (B, N), at least 0."""
        return (feature - reconstruction).norm(dim=-1)


class RelativeMSELoss(MSELoss):
    """`MSELoss`; the map is the geometric mean of the L2 distance and its ratio to the length of the feature.

    Not in the paper. The distance alone favours long features, which differ more from each other; the ratio alone, like
    the cosine, short ones. The ratio counts as at most 1.
    """

    def anomaly_map(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """L2 distance over the square root of the feature's length, (B, N), at least 0."""
        distance = super().anomaly_map(feature, reconstruction)
        return distance / torch.maximum(distance, feature.norm(dim=-1)).clamp_min(1e-12).sqrt()


class NormalizedMSELoss(MSELoss):
    """`MSELoss` of unit-length tokens (Eq. A2), summed over channels as printed there; the map lies in [0, 2]."""

    def forward(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """Scalar loss of tokens (B, N, C)."""
        difference = F.normalize(feature, dim=-1) - F.normalize(reconstruction, dim=-1)
        return difference.square().sum(dim=-1).mean()

    def anomaly_map(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """L2 distance of each unit-length token, (B, N), in [0, 2]."""
        return super().anomaly_map(F.normalize(feature, dim=-1), F.normalize(reconstruction, dim=-1))


class CosineLoss(ReconstructionLoss):
    """One minus the cosine, averaged over tokens; Eq. A3 as printed would maximise the distance."""

    def forward(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """Scalar loss of tokens (B, N, C)."""
        return self.anomaly_map(feature, reconstruction).mean()

    def anomaly_map(self, feature: Tensor, reconstruction: Tensor) -> Tensor:
        """Cosine distance of each token, (B, N), in [0, 2]."""
        return 1 - F.cosine_similarity(feature, reconstruction, dim=-1)
