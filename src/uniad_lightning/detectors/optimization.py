"""What trains the parameters of a method: a loss that is finite, an optimizer, and its schedule."""

from collections.abc import Callable, Iterable, Mapping

from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.detectors.base import AnomalyModule
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


def report_loss(
    module: AnomalyModule, loss: Tensor, *, batch_idx: int, images: int, parts: Mapping[str, Tensor] | None = None
) -> Tensor:
    """The `loss` of a batch of that many `images`, logged for the step and the epoch; its `parts` as `train/NAME`.

    Raises InputError where it is no longer finite; that is looked at every tenth batch, since a GPU has to wait for it.
    """
    if (batch_idx % 10 == 0 or module.trainer.is_last_batch) and not loss.isfinite():
        raise InputError(
            f"the loss is {loss.item()} at batch {module.data.steps.done}: the training has diverged; lower "
            "optimizer.lr, and resume from an earlier checkpoint if there is one"
        )
    module.log("train/loss_step", loss)
    module.log("train/loss_epoch", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=images)
    for name, part in (parts or {}).items():
        module.log(f"train/{name}", part)
    return loss
