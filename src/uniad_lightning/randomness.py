"""Keyed randomness: order, jitter, dropout and augmentation are functions of seed, epoch, step and sample alone.

Nothing depends on earlier draws: a run resumed in the middle of an epoch needs no random state. On a CPU nothing
depends on the number of processes either.
"""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

_rank = 0  # of this process, as of the last `seed_step`


def key(*parts: int | str) -> int:
    """A 63-bit seed from `parts`; the same on every machine and in every process."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def permutation(count: int, *, seed: int, epoch: int) -> Tensor:
    """The order of `count` training samples in an epoch, (count,) int64."""
    generator = torch.Generator().manual_seed(key("order", seed, epoch))
    return torch.randperm(count, generator=generator)


def seed_step(*, seed: int, epoch: int, step: int, rank: int) -> None:
    """Set torch's generators for the random numbers of this step.

    The CPU's is the same on all ranks, and `sample_seeds` gives each sample its own. A GPU's differs between ranks,
    since its kernels draw for a whole batch at once.
    """
    global _rank
    _rank = rank
    torch.manual_seed(key("step", seed, epoch, step, rank))
    torch.default_generator.manual_seed(key("step", seed, epoch, step))


def sample_seeds(count: int) -> list[int]:
    """A seed for each of this rank's `count` samples of a batch, by its place in the global batch.

    They follow from the next number of torch's generator, so that they are the same for any number of ranks.
    """
    base = int(torch.empty((), dtype=torch.int64).random_())
    return [key(base, _rank * count + i) for i in range(count)]


def draw(kind: Callable[..., Tensor], shape: torch.Size, device: torch.device) -> Tensor:
    """Numbers of `kind`, `torch.randn` or `torch.rand`, of `shape` (B, ...); each sample's own stream on a CPU."""
    if device.type != "cpu":
        return kind(shape, device=device)
    seeds = sample_seeds(shape[0])
    return torch.stack([kind(shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds])
