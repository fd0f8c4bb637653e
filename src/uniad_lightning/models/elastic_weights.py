"""Elastic weight consolidation (Kirkpatrick et al. 2017): weights stay where what was learned first needs them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class ElasticWeights(nn.Module):
    """Holds parameters near `anchor`, each as firmly as its diagonal Fisher information `fisher` says; both (P,).

    `weight` is lambda, above 0. P is the number of all entries of the `parameters`, in their order.
    """

    anchor: Tensor
    fisher: Tensor

    def __init__(self, parameters: Sequence[nn.Parameter], *, weight: float):
        super().__init__()
        self.weight = weight
        self.sizes = [parameter.numel() for parameter in parameters]
        self.register_buffer("anchor", torch.zeros(sum(self.sizes)))
        self.register_buffer("fisher", torch.zeros(sum(self.sizes)))

    @torch.no_grad()
    def fit(self, parameters: Mapping[str, nn.Parameter], fisher: Mapping[str, Tensor]) -> None:
        """Anchor the `parameters` where they are, with their Fisher information of the same names and shapes."""
        self.anchor.copy_(torch.cat([parameter.reshape(-1) for parameter in parameters.values()]))
        self.fisher.copy_(torch.cat([fisher[name].reshape(-1) for name in parameters]))

    def forward(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """The penalty, a scalar of at least 0: weight / 2 * sum of fisher * (parameter - anchor)^2."""
        parts = zip(parameters, self.anchor.split(self.sizes), self.fisher.split(self.sizes), strict=True)
        held = [(fisher * (one.reshape(-1) - anchor).square()).sum() for one, anchor, fisher in parts]
        return self.weight / 2 * torch.stack(held).sum()
