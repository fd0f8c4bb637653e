"""A coreset of patches by greedy k-center, the farthest point first (Roth et al. 2022, Algorithm 1).

The algorithm passes over all patches for each choice, to update their distances to the coreset. Here one pass serves
many choices; the choices are the same.
"""

import numpy as np
import torch
from torch import Tensor

from uniad_lightning.errors import InputError
from uniad_lightning.progress_bar import progress_bar

CANDIDATES = 1024  # the farthest patches at a time, among which the next ones are chosen
MEGABYTES = 16  # of distances at a time


def check_share(share: float, dim: int | None) -> None:
    """Raises InputError for a share outside (0, 1], and for a dimension that is not a whole number of at least 1."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise InputError(f"model.coreset={share}: expected a share of the patches, above 0 and at most 1")
    if dim is not None and (not isinstance(dim, int) or isinstance(dim, bool) or dim < 1):
        raise InputError(f"model.coreset_dim={dim}: expected at least 1, or null for no projection")


@torch.no_grad()
def coreset(patches: Tensor, share: float, *, seed: int, progress: bool, dim: int | None) -> Tensor:
    """Indices (k,) int64 of `share` of the `patches` (M, C), at least one, in the order in which they are chosen.

    The first is drawn by `seed`; each further one is farthest from all before it. Distances are Euclidean, after a
    Gaussian random projection to `dim` channels, drawn by `seed` as well, where that is fewer than C; None: no
    projection. `progress` shows a bar. Memory is bounded beside that of the centred and projected patches.

    Raises InputError for a share outside (0, 1], for a dimension below 1, and without patches.
    """
    check_share(share, dim)
    if len(patches) == 0:
        raise InputError("model.coreset: there are no patches to choose from")
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(len(patches), (), generator=generator))
    points = patches.float()
    points = points - points.mean(dim=0)  # products of small numbers round less
    if dim is not None and dim < points.shape[1]:
        points = points @ torch.randn(points.shape[1], dim, generator=generator).to(points.device) / dim**0.5
    return _farthest_first(points, first, max(1, round(share * len(points))), progress)


def _farthest_first(points: Tensor, first: int, count: int, progress: bool) -> Tensor:
    """Indices (count,) of `points` (M, d), from `first` on always the one farthest from all before it."""
    squares = points.square().sum(dim=1)
    distances = torch.full_like(squares, torch.inf)  # squared, of each point to the nearest one chosen
    chosen = torch.tensor([first], device=points.device)
    new = chosen
    with progress_bar("coreset", total=count, done=1, unit="patch", shown=progress) as bar:
        while len(chosen) < count:
            _lower(distances, points, squares, new)
            distances[new] = -1  # chosen once, even where only copies of chosen points are left
            new = _farthest(distances, points, squares, count - len(chosen))
            chosen = torch.cat([chosen, new])
            bar.update(len(new))
    return chosen


def _lower(distances: Tensor, points: Tensor, squares: Tensor, new: Tensor) -> None:
    """Updates `distances` (M,) in place by those to the `new` points."""
    rows = max(1, int(MEGABYTES * 1e6) // (4 * len(new)))
    others, offsets = points[new].T, squares[new]
    for start in range(0, len(points), rows):
        part = slice(start, start + rows)
        nearest = torch.addmm(offsets, points[part], others, alpha=-2).amin(dim=1) + squares[part]
        torch.minimum(distances[part], nearest.clamp_(min=0), out=distances[part])


def _farthest(distances: Tensor, points: Tensor, squares: Tensor, most: int) -> Tensor:
    """The next choices, 1 to `most`, as far as the distances among the candidates determine them.

    The candidates are the points farthest from those chosen. With each choice distances shrink, never grow; so the
    farthest candidate is the farthest of all points for as long as no candidate was nearer before the first choice.
    """
    some = distances.topk(min(CANDIDATES, len(distances)))
    points, squares = points[some.indices], squares[some.indices]
    between = torch.addmm(squares, points, points.T, alpha=-2).add_(squares[:, None]).clamp_(min=0).cpu().numpy()
    left = some.values.cpu().numpy().copy()
    floor = left[-1] if len(left) < len(distances) else -1
    places = [0]
    while len(places) < most:
        left = np.minimum(left, between[places[-1]])
        left[places] = -1
        farthest = int(left.argmax())
        if left[farthest] < max(floor, 0):
            break
        places.append(farthest)
    return some.indices[torch.tensor(places, device=distances.device)]
