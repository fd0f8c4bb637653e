"""A Gaussian at each cell of the grid; a patch's score is its Mahalanobis distance (PaDiM, Defard et al. 2020).

Sums are updated batch by batch, so that memory does not depend on the number of images.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_above
from uniad_lightning.models.layers.state_shapes import follow_state
from uniad_lightning.types import pair


class GaussianGrid(nn.Module):
    """Features (B, C, h, w) -> Mahalanobis distance (B, h, w) of each cell to the Gaussian fitted there, at least 0.

    Call `update` with all good images, then `finish`. `dim` of the C channels are used, drawn once by `seed` and kept
    in the state; `regularization` is added to the diagonal of the covariances. With P = h*w cells and D = `dim` the
    state holds `mean` (P, D) and `whitening` (P, D, D), the inverse of the covariance's lower Cholesky factor, with
    which the distance is |whitening (x - mean)|.

    Until `finish`, `count` (), `total` (P, D) and `products` (P, D, D) are sums in float64 over the images; those of
    several processes are merged by adding them up.

    Raises InputError for values out of range.
    """

    channels: Tensor
    mean: Tensor
    whitening: Tensor
    count: Tensor
    total: Tensor
    products: Tensor

    def __init__(
        self, *, channels: int, grid: int | Sequence[int], dim: int, regularization: float, seed: int, megabytes: float
    ):
        super().__init__()
        self.grid = pair(grid, "model.grid")
        if not isinstance(dim, int) or isinstance(dim, bool) or not 1 <= dim <= channels:
            raise InputError(
                f"model.dim={dim}: expected from 1 to {channels}, the channels of the backbone's levels; lower it"
            )
        check_above({"regularization": regularization, "megabytes": megabytes})
        self.dim = dim
        self.regularization = regularization
        self.megabytes = megabytes
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("channels", torch.randperm(channels, generator=generator)[:dim].sort().values)
        self.register_buffer("mean", torch.empty(0, dim))
        self.register_buffer("whitening", torch.empty(0, dim, dim))
        follow_state(self, ["mean", "whitening"], lengths=[0, self.places])
        self._start()

    @property
    def places(self) -> int:
        """P, the number of Gaussians."""
        return self.grid[0] * self.grid[1]

    @property
    def num_parameters(self) -> int:
        """Numbers that are fitted: means and covariances, P D + P D^2."""
        return self.places * self.dim * (1 + self.dim)

    def _start(self, places: int = 0) -> None:
        """Sums of no image, for `places` cells; for none by default, so that a fitted grid does not keep them."""
        for name, shape in (("count", []), ("total", [places, self.dim]), ("products", [places, self.dim, self.dim])):
            sums = torch.zeros(shape, dtype=torch.float64, device=self.channels.device)
            self.register_buffer(name, sums, persistent=False)

    def sums(self) -> tuple[Tensor, Tensor, Tensor]:
        """`count`, `total` and `products`; zeros before the first image."""
        if len(self.total) == 0:
            self._start(self.places)
        return self.count, self.total, self.products

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Adds images, as features (B, C, h, w), to the sums; after `finish` to new ones."""
        values = self._values(features)
        self.sums()
        self.count += values.shape[1]
        for part in self._parts(len(features)):
            some = values[part].double()  # (p, B, D)
            self.total[part] += some.sum(dim=1)
            self.products[part].baddbmm_(some.mT, some)

    @torch.no_grad()
    def finish(self) -> None:
        """Computes means and covariances from the sums, and drops these; InputError for fewer than two images."""
        if self.count < 2:
            raise InputError(f"{int(self.count)} train images have no covariance; expected at least 2")
        mean = (self.total / self.count).float()
        whitening = torch.empty_like(self.products, dtype=torch.float32)
        eye = torch.eye(self.dim, dtype=torch.float64, device=self.products.device)
        for part in self._parts():
            factor, failed = torch.linalg.cholesky_ex(self.covariance(part))
            if failed.any():
                raise InputError(f"model.regularization={self.regularization}: leaves covariances singular; raise it")
            whitening[part] = torch.linalg.solve_triangular(factor, eye, upper=False)
        self.mean, self.whitening = mean, whitening
        self._start()

    def covariance(self, part: slice = slice(None)) -> Tensor:
        """Regularised covariances (p, D, D) float64 of a part of the cells, from the sums so far."""
        total = self.total[part]
        centred = self.products[part] - total[:, :, None] * total[:, None] / self.count  # (p, D, D)
        centred.div_(self.count - 1).diagonal(dim1=1, dim2=2).add_(self.regularization)
        return centred

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, h, w); InputError before `finish`."""
        if len(self.mean) == 0:
            raise InputError("the Gaussians have no mean yet: fit the detector first")
        apart = self._values(features) - self.mean[:, None]  # (P, B, D)
        return (apart @ self.whitening.mT).square().sum(dim=2).sqrt().T.unflatten(1, self.grid)

    def _values(self, features: Tensor) -> Tensor:
        """The channels that are used, cell by cell: (P, B, D)."""
        if features.shape[-2:] != self.grid:
            raise InputError(f"features of {tuple(features.shape[-2:])} cells; expected model.grid={list(self.grid)}")
        return features.float()[:, self.channels].flatten(2).permute(2, 0, 1)

    def _parts(self, images: int = 0) -> Iterator[slice]:
        """Parts of the cells that fit the memory: four matrices for each cell, and the values of `images`."""
        each = 8 * self.dim * (4 * self.dim + 2 * images)
        rows = max(1, int(self.megabytes * 1e6 / each))
        return (slice(start, start + rows) for start in range(0, self.places, rows))
