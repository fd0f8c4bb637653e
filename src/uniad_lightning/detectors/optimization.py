"""What trains the parameters of a method: an optimizer and its schedule, built from the configuration's parts."""

from collections.abc import Callable, Iterable

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.errors import InputError, one_line


def optimize(
    parameters: Iterable[nn.Parameter],
    *,
    optimizer: Callable[..., Optimizer],
    schedule: Callable[..., LRScheduler],
    total_steps: int,
) -> OptimizerLRSchedulerConfig:
    """The optimizer over all `parameters` that learn, and its schedule over `total_steps`, stepped with it.

    Raises InputError for values that do not fit.
    """
    try:
        built = optimizer([parameter for parameter in parameters if parameter.requires_grad])
        rates = schedule(built, total_steps=total_steps)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer or schedule: a value does not fit; {one_line(error)}") from error
    return {"optimizer": built, "lr_scheduler": {"scheduler": rates, "interval": "step"}}
