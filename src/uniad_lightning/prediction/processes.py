"""The processes that torchrun or srun has started with the same words: which this is, and what they agree on."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from uniad_lightning.errors import InputError, one_line

T = TypeVar("T")

_MEETING = timedelta(minutes=10)  # for the others to start
_WAITING = timedelta(days=7)  # for the others to end; one whose process has ended is noticed at once


class Ended(Exception):
    """Another process has said what is wrong, and all of them end."""


class Processes:
    """The processes of one call.

    Args:
        rank: number of this one, from 0.
        count: how many there are.
        local_rank: its number on its machine.
        exchange: gives a value to all others and returns everyone's, by rank; blocks until all have called it.
    """

    def __init__(self, *, rank: int, count: int, local_rank: int, exchange: Callable[[Any], list[Any]]):
        self.rank = rank
        self.count = count
        self.local_rank = local_rank
        self._exchange = exchange

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.rank == 0

    def everyones(self, value: T) -> list[T]:
        """The value of each process, by rank. Raises InputError when one of them has ended."""
        try:
            return self._exchange(value)
        except RuntimeError as error:  # of gloo: the connection to a process is closed, or nothing came for too long
            raise InputError(
                f"process {self.rank} of {self.count}: another one has ended early and says itself why; what is "
                f"written is kept: go on with resume=true ({one_line(error)[:80]})"
            ) from error

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """All processes get through this block or none; they leave it together.

        The error of the first that has one is raised there, and Ended in the others, so that it is told once.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        failed = self.everyones(failure is not None)
        if failure is not None and failed.index(True) == self.rank:
            raise failure
        if any(failed):
            raise Ended

    def owns(self, place: int, block: int) -> bool:
        """Whether the item number `place` is this process's: `block` items in a row each, in turn."""
        return place // block % self.count == self.rank

    def share(self, total: int, block: int) -> int:
        """How many of `total` items are this process's."""
        rounds, rest = divmod(total, block * self.count)
        return rounds * block + min(max(rest - self.rank * block, 0), block)

    def device(self, name: str) -> str:
        """For `auto` and `cuda` a GPU of this process's own, as far as there are enough on its machine; else `name`."""
        if self.count == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"


ALONE = Processes(rank=0, count=1, local_rank=0, exchange=lambda value: [value])


class _Place(NamedTuple):
    rank: int
    world_size: int
    local_rank: int
    meet_at: str  # a URL of torch.distributed's rendezvous


def join() -> Processes:
    """Meet the other processes of this call; `ALONE` where neither torchrun nor srun has started any.

    Raises InputError when they do not come or cannot be reached.
    """
    place = _by_torchrun() or _by_srun()
    if place is None or place.world_size == 1:
        return ALONE
    try:
        if not dist.is_initialized():
            _meet(place)
        group: Any = dist.new_group(timeout=_WAITING)
    except (RuntimeError, ValueError) as error:  # the second for a missing MASTER_ADDR
        raise InputError(
            f"process {place.rank} of {place.world_size}: cannot meet the others at {place.meet_at}: start all by "
            f"torchrun or srun, with a free port as MASTER_PORT ({one_line(error)})"
        ) from None

    def exchange(value: Any) -> list[Any]:
        values: list[Any] = [None] * place.world_size
        dist.all_gather_object(values, value, group=group)
        return values

    return Processes(rank=place.rank, count=place.world_size, local_rank=place.local_rank, exchange=exchange)


def _meet(place: _Place) -> None:
    store, rank, count = next(rendezvous(place.meet_at, place.rank, place.world_size, timeout=_MEETING))
    # A torchrun that starts its processes anew keeps the store, in which their predecessors' addresses are.
    attempt = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group("gloo", store=attempt, rank=rank, world_size=count, timeout=_MEETING)


def _by_torchrun() -> _Place | None:
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return None
    return _place("RANK", "WORLD_SIZE", "LOCAL_RANK", meet_at="env://")


def _by_srun() -> _Place | None:
    # The step's own number: the script of a batch job is one process of a job of many tasks.
    if not {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= os.environ.keys():
        return None
    from lightning.fabric.plugins.environments import SLURMEnvironment

    nodes = os.environ.get("SLURM_STEP_NODELIST", "localhost")
    host = os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # A port that all processes of the step know and other steps hardly have.
    job, step = (int(os.environ.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = os.environ.get("MASTER_PORT") or 15000 + (16 * job + step) % 15000
    return _place("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", meet_at=f"tcp://{host}:{port}")


def _place(rank: str, count: str, local_rank: str, *, meet_at: str) -> _Place:
    numbers = {name: os.environ.get(name, "0") for name in (rank, count, local_rank)}
    if not all(text.isdecimal() for text in numbers.values()) or not int(numbers[rank]) < int(numbers[count]):
        said = ", ".join(f"{name}={text}" for name, text in numbers.items())
        raise InputError(f"{said} in the environment: expected the numbers of a process that torchrun or srun sets")
    return _Place(int(numbers[rank]), int(numbers[count]), int(numbers[local_rank]), meet_at)
