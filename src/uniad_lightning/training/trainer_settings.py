"""Checks of the trainer's settings: those that would change steps, learning rates or evaluations are refused."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import lightning as L
from lightning.pytorch import callbacks as lightning_callbacks

from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.errors import InputError

_SHIFTING = (
    "GradientAccumulationScheduler",
    "BatchSizeFinder",
    "LearningRateFinder",
    "StochasticWeightAveraging",
    "Timer",
)
_WHOLE_SPLIT = "an evaluation uses each image of the test split once; for fewer images give data.limit=N"

# By setting: the values that change nothing, and why others are refused.
_FIXED: dict[str, tuple[tuple[Any, ...], str]] = {
    "overfit_batches": (
        (0, 0.0),
        "it changes the order of the images; to train on few images give data.limit=N",
    ),
    "fast_dev_run": ((False, None, 0), "it evaluates only a part of the test split; give trainer=smoke"),
    "max_time": (
        (None,),
        "the learning rate depends on the number of steps; give max_epochs or max_steps, and resume a training that is "
        "interrupted with resume=RUN",
    ),
    "limit_test_batches": ((None, 1.0), _WHOLE_SPLIT),
    "limit_val_batches": ((None, 1.0), f"{_WHOLE_SPLIT}, for no evaluation while training validate_every=null"),
    "num_sanity_val_steps": ((0,), _WHOLE_SPLIT),
    "check_val_every_n_epoch": ((None,), "give validate_every instead"),
    "val_check_interval": ((None, 1.0), "evaluations are between epochs; give validate_every instead"),
    "use_distributed_sampler": ((False,), "batches are already divided over the processes; leave it at false"),
}


class _Kind(NamedTuple):
    expected: str
    accepts: Callable[[Any], bool]


def _whole(least: int, *others: int | None) -> _Kind:
    alternatives = ["null" if other is None else str(other) for other in others]
    return _Kind(
        ", ".join([f"a whole number of at least {least}", *alternatives[:-1]])
        + (f" or {alternatives[-1]}" if alternatives else ""),
        lambda value: value in others or (_is_whole(value) and value >= least),
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_limit(value: Any) -> bool:
    if value is None or _is_whole(value):
        return value is None or value >= 1
    return isinstance(value, float) and (0 < value <= 1 or (value > 1 and value.is_integer()))


def _is_norm(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= 0)


_KINDS = {
    "accumulate_grad_batches": _whole(1),
    "max_epochs": _whole(1, -1, None),
    "max_steps": _whole(1, -1),
    "min_epochs": _whole(0, None),
    "min_steps": _whole(0, None),
    "num_nodes": _whole(1),
    "log_every_n_steps": _whole(0),
    "reload_dataloaders_every_n_epochs": _whole(0),
    "limit_train_batches": _Kind("a number of batches, or a share of them above 0 and at most 1.0", _is_limit),
    "gradient_clip_val": _Kind("a number of at least 0, or null", _is_norm),
}


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Raises InputError for a value of `settings`, the arguments of Lightning's trainer, that a run cannot have."""
    if not isinstance(settings, Mapping):
        raise InputError(f"trainer={settings}: expected an option of the group trainer, such as trainer=cpu")
    for name, value in settings.items():
        if name in _FIXED:
            allowed, reason = _FIXED[name]
            if not any(type(value) is type(a) and value == a for a in allowed):  # 1 is a batch, 1.0 all of them
                raise InputError(f"trainer.{name}={value}: {reason}")
        if name in _KINDS and not _KINDS[name].accepts(value):
            raise InputError(f"trainer.{name}={_as_text(value)}: expected {_KINDS[name].expected}")


def check_end(settings: Mapping[str, Any]) -> None:
    """Raises InputError where neither max_epochs nor max_steps sets an end to a training."""
    if settings.get("max_epochs") in (None, -1) and settings.get("max_steps", -1) == -1:
        raise InputError(
            f"trainer.max_epochs={_as_text(settings.get('max_epochs'))} and trainer.max_steps=-1 set no end; expected "
            "at least 1 epoch, or a number of steps"
        )


def check_validations(validate_every: Any) -> None:
    """Raises InputError for a `validate_every` that is neither null nor a number of epochs."""
    if validate_every is not None and not (_is_whole(validate_every) and validate_every >= 0):
        raise InputError(f"validate_every={validate_every}: expected a number of epochs, or null for no validation")


def refuse_shifting(callbacks: Mapping[str, L.Callback]) -> None:
    """Raises InputError for one of Lightning's callbacks that changes how many steps there are or their rates."""
    for name, callback in callbacks.items():
        for kind in _SHIFTING:
            if isinstance(callback, getattr(lightning_callbacks, kind)):
                raise InputError(
                    f"callbacks.{name}: {kind} changes steps or learning rates, which the configuration "
                    "sets here; leave it out"
                )


def refuse_for_method(trainer: L.Trainer, module: AnomalyModule) -> None:
    """Raises InputError for settings of the `trainer` that the method of `module` does not allow."""
    name = type(module).__name__
    if module.one_pass and any(getattr(part, "trainable", False) for part in module.children()):
        raise InputError(f"backbone.trainable=true: {name} is fitted in one pass, without gradients; leave it at false")
    if module.one_pass and (trainer.max_epochs != 1 or trainer.max_steps != -1):
        raise InputError(
            f"trainer.max_epochs={trainer.max_epochs}, trainer.max_steps={trainer.max_steps}: {name} is fitted in one "
            "pass over the train images; leave them at 1 and -1"
        )
    if module.automatic_optimization:
        return
    for setting, value, neutral in (
        ("max_steps", trainer.max_steps, -1),
        ("accumulate_grad_batches", trainer.accumulate_grad_batches, 1),
        ("gradient_clip_val", trainer.gradient_clip_val, None),
    ):
        if value != neutral:
            remedy = f"give trainer.{setting}={_as_text(neutral)}"
            raise InputError(f"trainer.{setting}={value}: {name} steps its optimizers itself; {remedy}")


def _as_text(value: Any) -> str:
    return "null" if value is None else repr(value) if isinstance(value, str) else str(value)
