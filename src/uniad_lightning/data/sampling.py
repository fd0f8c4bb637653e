"""Which images a process gets in which step: functions of seed, epoch and step, for any number of processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.randomness import key, permutation


class Draw(NamedTuple):
    """One training sample: the image's `place` among the records, and the sample's `number` in the whole training."""

    place: int
    number: int


class AllImages:
    """An epoch is every image once, in random order (the paper)."""

    def __init__(self, *, categories: Sequence[str], seed: int):
        self.count = len(categories)
        self.seed = seed

    def __call__(self, epoch: int) -> Tensor:
        """Indices (N,) int64 of one epoch."""
        return permutation(self.count, seed=self.seed, epoch=epoch)


class Balanced:
    """An epoch is as many draws as there are images, equally many of each category, to within one.

    The images of a category are taken in random order; those of a small one are repeated equally often, to within one.
    `categories` (N,) is the category of each image.
    """

    def __init__(self, *, categories: Sequence[str], seed: int):
        self.seed = seed
        names = sorted({*categories})
        self.members = [torch.tensor([i for i, c in enumerate(categories) if c == name]) for name in names]
        self.count = len(categories)

    def __call__(self, epoch: int) -> Tensor:
        """Indices (N,) int64 of one epoch."""
        generator = torch.Generator().manual_seed(key("balanced", self.seed, epoch))
        turns = torch.randperm(len(self.members), generator=generator).tolist()  # the first categories get one more
        share, rest = divmod(self.count, len(self.members))
        drawn = []
        for turn, one in enumerate(turns):
            members, wanted = self.members[one], share + (turn < rest)
            rounds = -(-wanted // len(members))
            order = [members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)]
            drawn.append(torch.cat(order)[:wanted])
        return torch.cat(drawn)[torch.randperm(self.count, generator=generator)]


SAMPLING: dict[str, type[AllImages] | type[Balanced]] = {"all": AllImages, "balanced": Balanced}


def named_sampling(name: str) -> type[AllImages] | type[Balanced]:
    """The sampling `name`, `all` or `balanced`; InputError for an unknown one."""
    if name not in SAMPLING:
        raise InputError(
            f"data.sampling={name}: unknown; expected one of {', '.join(SAMPLING)}.{did_you_mean(str(name), SAMPLING)}"
        )
    return SAMPLING[name]


def fitting_batch(batch_size: int, *, images: int | None, processes: int) -> int:
    """The `batch_size`, or where there are fewer `images` the largest that the `processes` can divide.

    Without `images` a batch may be larger than they are. Raises InputError where the processes cannot divide it, and
    where there are fewer images than processes.
    """
    if batch_size % processes:
        raise InputError(
            f"data.batch_size={batch_size} cannot be divided by the {processes} processes of the trainer; "
            f"choose a multiple of {processes}"
        )
    if images is None or images >= batch_size:
        return batch_size
    if images < processes:
        raise InputError(f"data: has {images} train images, fewer than the {processes} processes of the trainer")
    return images - images % processes


class TrainBatches(Sampler[list[Draw]]):
    """This rank's slice of each global batch: step k of an epoch takes `order(epoch)[k*B:(k+1)*B]`, for any world size.

    `position()` is the number of batches done, which determines epoch and step, so that a resumed run continues with
    the next batch. The incomplete last batch of an epoch is dropped. `steps` is the number of batches of an epoch where
    the trainer limits them; None: all.
    """

    def __init__(
        self,
        *,
        order: Callable[[int], Tensor],
        count: int,
        batch_size: int,
        rank: int,
        world_size: int,
        position: Callable[[], int],
        steps: int | None = None,
    ):
        self.order = order
        self.count = count
        self.batch_size = batch_size
        self.share = slice(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)
        self.position = position
        self.steps = steps or len(self)

    def __len__(self) -> int:
        return self.count // self.batch_size  # without the limit, which may be a share of this in Lightning

    def __iter__(self) -> Iterator[list[Draw]]:
        epoch, start = divmod(self.position(), self.steps)
        order = self.order(epoch).tolist()
        for step in range(start, self.steps):
            first = step * self.batch_size
            done = (epoch * self.steps + step) * self.batch_size
            places = order[first : first + self.batch_size]
            yield [Draw(place, number) for number, place in enumerate(places, start=done)][self.share]


class EachImage(Sampler[list[int]]):
    """One pass over all images in order, none dropped: batch k is the images from k*B on, divided over the processes.

    All processes have equally many batches; of the last one some may have none.
    """

    def __init__(self, *, count: int, batch_size: int, rank: int, world_size: int):
        self.count = count
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        return -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(0, self.count, self.batch_size):
            yield list(range(start + self.rank, min(start + self.batch_size, self.count), self.world_size))


class EvaluationBatches(Sampler[list[int]]):
    """Items rank, rank + world_size, ...: each once, no padding. A rank without items gets one empty batch.

    Lightning skips the epoch-end hooks of a rank without batches, and the other ranks would wait for its collectives.
    """

    def __init__(self, *, count: int, batch_size: int, rank: int, world_size: int):
        self.items = list(range(rank, count, world_size))
        self.batch_size = batch_size

    def __len__(self) -> int:
        return max(1, -(-len(self.items) // self.batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        for i in range(len(self)):
            yield self.items[i * self.batch_size : (i + 1) * self.batch_size]
