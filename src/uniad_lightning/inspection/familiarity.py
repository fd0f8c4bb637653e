"""Whether an image resembles any category that the detector was trained on: a distance in feature space.

Not in the paper. The anomaly score of an unfamiliar image has no meaning.
"""

from typing import Any

import torch
from torch import Tensor


class Familiarity:
    """Distance of an image's mean feature to the nearest of `references` (n, C), mean features of good train images.

    Channels are standardised by the references; the distance is the root mean square over channels, at least 0. An
    image whose distance is above `boundary` is unfamiliar.
    """

    def __init__(self, *, references: Tensor, boundary: float):
        self.references = references.float()
        self.boundary = boundary
        self.mean = self.references.mean(dim=0)
        # A channel that hardly varies over the references would dominate the distance.
        std = self.references.std(dim=0, correction=0)
        self.std = std.clamp(min=max(1e-3 * std.mean().item(), 1e-12))

    def distance(self, descriptor: Tensor) -> Tensor:
        """Distances (B,), on the CPU, of mean features (B, C)."""
        scaled = ((descriptor.float().cpu() - self.mean) / self.std)[:, None]  # (B, 1, C)
        known = ((self.references - self.mean) / self.std)[None]  # (1, n, C)
        return torch.cdist(scaled, known)[:, 0].amin(dim=1) / self.references.shape[1] ** 0.5

    def plain(self) -> dict[str, Any]:
        """Plain values and tensors, as checkpoints store them."""
        return {"references": self.references.half(), "boundary": self.boundary}

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Familiarity":
        """The opposite of `plain`, which rounds to half precision."""
        return cls(references=values["references"].float(), boundary=values["boundary"])
