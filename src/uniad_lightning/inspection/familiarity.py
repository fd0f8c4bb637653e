"""Which category of the training an image resembles, and whether it resembles any: distances in feature space.

Not in the paper. The anomaly score of an unfamiliar image has no meaning.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from uniad_lightning.training.checkpoint_entries import is_whole

TWIN = 0.01  # a distance below is that of the same photograph twice


class Familiarity:
    """Distance of an image's mean feature to the nearest of `references` (n, C), mean features of good train images.

    Channels are standardised by the references; the distance is the root mean square over channels, at least 0. An
    image whose distance is above `boundary` is unfamiliar. `names` are the categories, and `owners` (n,) the place of
    each reference's category among them; checkpoints of earlier versions have neither. The last `reviewed` references
    are no train images, but images that a person has reviewed as good.
    """

    def __init__(
        self,
        *,
        references: Tensor,
        boundary: float,
        names: Sequence[str] = (),
        owners: Tensor | None = None,
        reviewed: int = 0,
    ):
        self.references = references.float()
        self.boundary = boundary
        self.names = tuple(names)
        self.reviewed = reviewed
        self.owners = torch.full((len(references),), -1) if owners is None else owners.long()
        self.mean = self.references.mean(dim=0)
        # A channel that hardly varies over the references would dominate the distance.
        std = self.references.std(dim=0, correction=0)
        self.std = std.clamp(min=max(1e-3 * std.mean().item(), 1e-12))
        self._known = (self.references - self.mean) / self.std

    def nearest(self, descriptor: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (B,) of mean features (B, C) to the nearest reference, and its category's place (B,), on the CPU.

        The place is -1 where categories are not known.
        """
        scaled = ((descriptor.float().cpu() - self.mean) / self.std)[:, None]  # (B, 1, C)
        distance, place = torch.cdist(scaled, self._known[None])[:, 0].min(dim=1)
        return distance / self.references.shape[1] ** 0.5, self.owners[place]

    def distance(self, descriptor: Tensor) -> Tensor:
        """Distances (B,), on the CPU, of mean features (B, C)."""
        return self.nearest(descriptor)[0]

    def apart(self) -> tuple[Tensor, Tensor]:
        """As `nearest` of each reference among all the others that are no copies of it, as if it were a new image.

        Infinite where there are no others.
        """
        distances = self._between()
        distance, place = distances.masked_fill(distances < TWIN, float("inf")).min(dim=1)
        return distance, self.owners[place]

    def spread(self, place: int) -> float:
        """Median distance between two references of the category at `place` among the names; NaN of fewer than two."""
        own = self.owners == place
        apart = self._between()[own][:, own]
        pairs = apart[torch.ones_like(apart, dtype=torch.bool).triu(diagonal=1)]
        return float(pairs.median()) if len(pairs) else float("nan")

    def _between(self) -> Tensor:
        """Distances (n, n) between the references."""
        return torch.cdist(self._known, self._known) / self.references.shape[1] ** 0.5

    def copies(self) -> tuple[int, list[str]]:
        """How many references have a copy among the others, and the categories that have a copy in another one."""
        same = (self._between() < TWIN).fill_diagonal_(False)
        shared = self.owners[(same & (self.owners[:, None] != self.owners)).any(dim=1)]
        return int(same.any(dim=1).sum()), sorted({self.names[place] for place in shared.tolist() if place >= 0})

    def plain(self) -> dict[str, Any]:
        """Plain values and tensors, as checkpoints store them."""
        return {
            "references": self.references.half(),
            "boundary": self.boundary,
            "names": list(self.names),
            "owners": self.owners,
            "reviewed": self.reviewed,
        }

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Familiarity":
        """The opposite of `plain`, which rounds to half precision; ValueError for anything else."""
        references: Any = values.get("references")
        owners: Any = values.get("owners")
        boundary, names, reviewed = values.get("boundary"), values.get("names", ()), values.get("reviewed", 0)
        if not is_whole(references, 2) or not len(references) or not references.is_floating_point():
            raise ValueError("the references of what is familiar are no numbers (n, C)")
        if not isinstance(boundary, float | int) or not 0 < boundary < math.inf:
            raise ValueError(f"the boundary of what is familiar is {boundary!r:.40}, expected a number above 0")
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise ValueError("the categories of what is familiar are no names")
        if owners is not None:
            if not is_whole(owners, 1) or owners.is_floating_point() or len(owners) != len(references):
                raise ValueError("the categories of what is familiar are not one number for each reference")
            if owners.min() < -1 or owners.max() >= len(names):
                raise ValueError("the categories of what is familiar have a number without a name")
        if not isinstance(reviewed, int) or not 0 <= reviewed <= len(references):
            raise ValueError(f"of {len(references)} references of what is familiar {reviewed!r:.40} are reviewed ones")
        return cls(references=references.float(), boundary=boundary, names=names, owners=owners, reviewed=reviewed)
