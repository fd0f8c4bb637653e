"""The processes that torchrun or srun has started with the same command: their ranks, and values they exchange."""

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

_START_TIMEOUT = timedelta(minutes=10)  # for the others to start
_EXCHANGE_TIMEOUT = timedelta(days=7)  # for the others to finish; the end of a process is noticed at once


class OtherProcessFailed(Exception):
    """Another process raises the error, and all of them end."""


class Processes:
    """The processes of one call.

    Args:
        rank: number of this one, from 0.
        count: how many there are.
        local_rank: its number on its machine.
        exchange: sends a value to all others and returns the values of all, by rank; blocks until all have called it.
    """

    def __init__(self, *, rank: int, count: int, local_rank: int, exchange: Callable[[Any], list[Any]]):
        self.rank = rank
        self.count = count
        self.local_rank = local_rank
        self._exchange = exchange

    @property
    def first(self) -> bool:
        """Whether this is the process that prints for all."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank. Raises InputError when one of them has ended."""
        try:
            return self._exchange(value)
        except RuntimeError as error:  # of gloo: the connection to a process is closed, or nothing came for too long
            raise InputError(
                f"process {self.rank} of {self.count}: another one has ended early and prints the reason; what is "
                f"written is kept: go on with resume=true ({one_line(error)[:80]})"
            ) from error

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """All processes complete this block or none; they leave it together.

        The error of the first process that has one is raised there, and OtherProcessFailed in the others, so that it is
        reported once.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # whatever it is, the other processes have to know
            failure = error
        failed = self.gather(failure is not None)
        if failure is not None and failed.index(True) == self.rank:
            raise failure
        if any(failed):
            raise OtherProcessFailed

    def owns(self, place: int, block: int) -> bool:
        """Whether the item number `place` belongs to this process: each takes `block` items in turn."""
        return place // block % self.count == self.rank

    def share(self, total: int, block: int) -> int:
        """How many of `total` items belong to this process."""
        rounds, rest = divmod(total, block * self.count)
        return rounds * block + min(max(rest - self.rank * block, 0), block)

    def device(self, name: str) -> str:
        """For `auto` and `cuda` the GPU of this process, shared where its machine has too few; else `name`."""
        if self.count == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"


ALONE = Processes(rank=0, count=1, local_rank=0, exchange=lambda value: [value])


class _Rendezvous(NamedTuple):
    rank: int
    world_size: int
    local_rank: int
    url: str  # of torch.distributed's rendezvous


def join() -> Processes:
    """Connect to the other processes of this call; `ALONE` where neither torchrun nor srun has started any.

    Raises InputError when they do not start or cannot be reached.
    """
    own = _by_torchrun() or _by_srun()
    if own is None or own.world_size == 1:
        return ALONE
    try:
        if not dist.is_initialized():
            _connect(own)
        group: Any = dist.new_group(timeout=_EXCHANGE_TIMEOUT)
    except (RuntimeError, ValueError) as error:  # the second for a missing MASTER_ADDR
        raise InputError(
            f"process {own.rank} of {own.world_size}: cannot reach the others at {own.url}: start all by "
            f"torchrun or srun, with a free port as MASTER_PORT ({one_line(error)})"
        ) from None

    def exchange(value: Any) -> list[Any]:
        values: list[Any] = [None] * own.world_size
        dist.all_gather_object(values, value, group=group)
        return values

    return Processes(rank=own.rank, count=own.world_size, local_rank=own.local_rank, exchange=exchange)


def _connect(own: _Rendezvous) -> None:
    store, rank, count = next(rendezvous(own.url, own.rank, own.world_size, timeout=_START_TIMEOUT))
    # A torchrun that restarts its processes keeps the store with the addresses of the former ones.
    attempt = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group("gloo", store=attempt, rank=rank, world_size=count, timeout=_START_TIMEOUT)


def _by_torchrun() -> _Rendezvous | None:
    if not {"RANK", "WORLD_SIZE"} <= os.environ.keys():
        return None
    return _from_environment("RANK", "WORLD_SIZE", "LOCAL_RANK", url="env://")


def _by_srun() -> _Rendezvous | None:
    # The number of the step: the script of a batch job is one process of a job of many tasks.
    if not {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= os.environ.keys():
        return None
    from lightning.fabric.plugins.environments import SLURMEnvironment

    nodes = os.environ.get("SLURM_STEP_NODELIST", "localhost")
    host = os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    # A port that all processes of the step derive, and that another step is unlikely to have.
    job, step = (int(os.environ.get(name, 0)) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = os.environ.get("MASTER_PORT") or 15000 + (16 * job + step) % 15000
    return _from_environment("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", url=f"tcp://{host}:{port}")


def _from_environment(rank: str, count: str, local_rank: str, *, url: str) -> _Rendezvous:
    numbers = {name: os.environ.get(name, "0") for name in (rank, count, local_rank)}
    if not all(text.isdecimal() for text in numbers.values()) or not int(numbers[rank]) < int(numbers[count]):
        given = ", ".join(f"{name}={text}" for name, text in numbers.items())
        raise InputError(f"{given} in the environment: expected the numbers of a process that torchrun or srun sets")
    return _Rendezvous(int(numbers[rank]), int(numbers[count]), int(numbers[local_rank]), url)
