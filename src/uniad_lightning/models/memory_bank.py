"""A memory bank of good patches; a patch's score is its distance to the nearest one (PatchCore, Roth et al. 2022).

The paper keeps a bank for each category. Here one serves all categories and keeps the category of each patch, so that
categories can be added and removed.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.initialization import check_above, check_counts, check_flags
from uniad_lightning.models.layers.state_shapes import follow_state

LEAST_PATCHES = 1024  # at a time where memory allows: matrix products of fewer are slow


class MemoryBank(nn.Module):
    """Tokens (B, N, C) -> Euclidean distance (B, N) of each to the nearest patch of the bank, at least 0.

    `patches` (M, C) are float32, or with `half` float16, and `owner` (M,) int64 is the category of each. Both are in
    the state dict, which loads with any M. `neighbors` is the number b of Eq. 7, and `megabytes` bounds what a search
    takes beside its input and output.

    The search is exhaustive. A matrix product of values centred on the bank's mean ranks the patches, rounding squared
    distances by about 1e-6 of the squared lengths; the distance to the first is then computed from the difference, so
    that a stored patch has distance 0, unless another is as near as the rounding.

    Raises InputError for values out of range.
    """

    patches: Tensor
    owner: Tensor
    center: Tensor
    half_squares: Tensor

    def __init__(self, *, channels: int, neighbors: int, half: bool, megabytes: float):
        super().__init__()
        check_counts({"neighbors": neighbors}, least=2)
        check_above({"megabytes": megabytes})
        check_flags({"half": half})
        self.neighbors = neighbors
        self.megabytes = megabytes
        self.register_buffer("patches", torch.empty(0, channels, dtype=torch.float16 if half else torch.float32))
        self.register_buffer("owner", torch.empty(0, dtype=torch.int64))
        # Computed from the patches: their mean (C,), and half of each one's squared distance from it (M,).
        self.register_buffer("center", torch.zeros(channels), persistent=False)
        self.register_buffer("half_squares", torch.empty(0), persistent=False)
        follow_state(self, ["patches", "owner"])
        self.register_load_state_dict_post_hook(_measure)

    def append(self, patches: Tensor, owner: Tensor) -> None:
        """Appends patches (n, C) of the categories `owner` (n,)."""
        if patches.shape != (len(owner), self.patches.shape[1]):
            expected = (len(owner), self.patches.shape[1])
            raise ValueError(f"patches {tuple(patches.shape)}: expected {expected}, a row for each owner")
        self.patches = torch.cat([self.patches, patches.detach().to(self.patches)])
        self.owner = torch.cat([self.owner, owner.to(self.owner)])
        _measure(self)

    def clear(self) -> None:
        """Removes all patches."""
        self.patches, self.owner = self.patches[:0], self.owner[:0]
        _measure(self)

    def remove(self, owner: int) -> int:
        """Removes the patches of the category `owner` and returns how many there were."""
        others = self.owner != owner
        self.patches, self.owner = self.patches[others], self.owner[others]
        _measure(self)
        return int((~others).sum())

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, C) -> (B, N); InputError while the bank is empty."""
        return self.nearest(tokens)[0]

    def nearest(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of tokens (..., C) to the nearest patch, and which patch that is, both (...)."""
        self._refuse_fewer_than(1)
        flat = tokens.float().flatten(0, -2) - self.center
        if torch.compiler.is_exporting():  # a graph with the bank as a constant and any number of tokens
            parts = [self._nearest_of(flat, slice(None))]
        else:
            parts = [self._nearest_in_turn(part) for part in flat.split(self._fit(LEAST_PATCHES))]
        distance, index = (torch.cat(one).view(tokens.shape[:-1]) for one in zip(*parts, strict=True))
        return distance, index

    def reweighted(self, tokens: Tensor, distances: Tensor) -> Tensor:
        """Image scores (B,) by Eq. 7 of tokens (B, N, C) and their `distances` (B, N) to the bank.

        The largest distance, times 1 minus the softmax share that the nearest patch of that token has among its own
        `neighbors` nearest patches of the bank, itself among them: the rarer that patch, the higher the score.

        Raises InputError with fewer than two patches in the bank, of which none is rare.
        """
        self._refuse_fewer_than(2)
        place = distances.argmax(dim=1)[:, None, None].expand(-1, 1, tokens.shape[2])
        token = tokens.float().gather(1, place)[:, 0]  # (B, C)
        largest, index = self.nearest(token)
        around = self._centred(self._around(self._centred(self.patches[index])))  # (B, b, C)
        spread = ((token - self.center)[:, None] - around).square().sum(dim=2).sqrt()  # (B, b)
        return largest * (1 - (largest - spread.logsumexp(dim=1)).exp())

    def _nearest_in_turn(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`_nearest_of` all patches, one part of them at a time."""
        distance = tokens.new_full(tokens.shape[:1], torch.inf)
        index = torch.zeros_like(distance, dtype=torch.int64)
        for part in self._parts(len(tokens)):
            other, place = self._nearest_of(tokens, part)
            index = torch.where(other < distance, place + part.start, index)
            distance = torch.minimum(distance, other)  # not `where`: what is not a number must remain so
        return distance, index

    def _nearest_of(self, tokens: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Distance of centred tokens (n, C) to the nearest in a part of the bank, and its place there, both (n,)."""
        patches = self._centred(self.patches[part])
        place = self._rank(tokens, patches, part).min(dim=1).indices
        return (tokens - patches[place]).square().sum(dim=1).sqrt(), place

    def _around(self, tokens: Tensor) -> Tensor:
        """The b nearest patches (n, b, C) of centred tokens (n, C), as they are in the bank."""
        parts = [slice(None)] if torch.compiler.is_exporting() else self._parts(len(tokens))
        ranks, indices = [], []
        for part in parts:
            rank = self._rank(tokens, self._centred(self.patches[part]), part)
            best = rank.topk(min(self.neighbors, rank.shape[1]), largest=False)
            ranks.append(best.values)
            indices.append(best.indices + (part.start or 0))
        rank, index = torch.cat(ranks, dim=1), torch.cat(indices, dim=1)
        place = rank.topk(min(self.neighbors, len(self.patches)), largest=False).indices
        return self.patches[index.gather(1, place)]

    def _rank(self, tokens: Tensor, patches: Tensor, part: slice) -> Tensor:
        """(n, m): half of each squared distance, less what is the same for all patches; of centred values."""
        return torch.addmm(self.half_squares[part], tokens, patches.T, alpha=-1)  # |t-p|^2 / 2 - |t|^2 / 2

    def _centred(self, patches: Tensor) -> Tensor:
        return patches.float() - self.center

    def _parts(self, count: int) -> Iterator[slice]:
        """Parts of the bank that fit the memory beside `count` tokens."""
        rows = self._fit(count)
        return (slice(start, start + rows) for start in range(0, len(self.patches), rows))

    def _fit(self, count: int) -> int:
        """How many patches fit half of the memory, with their copies and their ranks for `count` tokens."""
        return max(1, int(self.megabytes * 1e6 / (8 * (count + 2 * self.patches.shape[1]))))

    def _refuse_fewer_than(self, least: int) -> None:
        count = len(self.patches)
        if count < least:
            raise InputError(f"the memory bank holds {count} patches; expected {least} or more: fit the detector first")


@torch.no_grad()
def _measure(bank: MemoryBank, _: object = None) -> None:
    """Computes `center` and `half_squares` from the patches."""
    bank.center = bank.patches.sum(dim=0, dtype=torch.float32) / max(len(bank.patches), 1)
    squares = [bank._centred(bank.patches[part]).square().sum(dim=1) / 2 for part in bank._parts(0)]
    bank.half_squares = torch.cat([bank.center.new_empty(0), *squares])
