"""Keyed randomness: order, jitter, dropout and augmentation are functions of (seed, epoch, step, rank) alone.

Nothing depends on what was drawn before. A run resumed in the middle of an epoch therefore needs no random state.
"""

import hashlib

import torch
from torch import Tensor


def key(*parts: int | str) -> int:
    """A 63-bit seed from `parts`; the same on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order of `count` training samples in an epoch, (count,) int64."""
    generator = torch.Generator().manual_seed(key("order", seed, epoch))
    return torch.randperm(count, generator=generator)


def seed_step(*, seed: int, epoch: int, step: int, rank: int) -> None:
    """Set torch's generators (CPU and every GPU) for what this rank draws in this step."""
    torch.manual_seed(key("step", seed, epoch, step, rank))
