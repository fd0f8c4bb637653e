"""Learning rates over a whole training."""

from collections.abc import Sequence
from typing import TypeGuard

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, MultiStepLR, OneCycleLR

from uniad_lightning.errors import InputError


def warm_up_and_decay(optimizer: Optimizer, *, total_steps: int, fraction: float) -> LRScheduler:
    """Raises the learning rate from 1/25 of itself over `fraction` of all steps, then lowers it to 0 by a cosine.

    Raises InputError for a `fraction` outside (0, 1].
    """
    _check_fraction(fraction)
    steps = max(total_steps, 2)
    if fraction * steps in (1, steps):  # OneCycleLR divides by zero where one of its phases has a single step
        fraction = min(fraction + 1e-9, 1 - 1e-9)
    rates = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, rates, total_steps=steps, pct_start=fraction, cycle_momentum=False)


def drop_after(optimizer: Optimizer, *, total_steps: int, fraction: float, gamma: float) -> LRScheduler:
    """Multiplies the learning rate by `gamma` once, after `fraction` of all steps (800 of 1000 epochs, Sec. 4.2).

    Raises InputError for a `fraction` outside (0, 1] and a `gamma` that is not a number of at least 0.
    """
    _check_fraction(fraction)
    return drop_at(optimizer, total_steps=total_steps, fractions=[fraction], gamma=gamma)


def drop_at(optimizer: Optimizer, *, total_steps: int, fractions: Sequence[float], gamma: float) -> LRScheduler:
    """Multiplies the learning rate by `gamma` after each of the `fractions` of all steps; raises as `drop_after`."""
    for fraction in fractions:
        _check_fraction(fraction)
    if not _is_number(gamma) or not gamma >= 0:
        raise InputError(f"schedule.gamma={gamma}: expected a number of at least 0, such as 0.1")
    milestones = [max(1, round(fraction * total_steps)) for fraction in fractions]
    return MultiStepLR(optimizer, milestones=milestones, gamma=gamma)


def exponential_decay(optimizer: Optimizer, *, total_steps: int, end: float) -> LRScheduler:
    """Lowers the learning rate by the same factor at each step, to `end` of itself; InputError outside (0, 1]."""
    if not _is_number(end) or not 0 < end <= 1:
        raise InputError(f"schedule.end={end}: expected a share of the learning rate, above 0 and at most 1")
    return ExponentialLR(optimizer, gamma=end ** (1 / max(total_steps, 1)))


def cosine_decay(optimizer: Optimizer, *, total_steps: int) -> LRScheduler:
    """Lowers the learning rate to 0 by half a cosine."""
    return CosineAnnealingLR(optimizer, T_max=max(total_steps, 1))


def _check_fraction(fraction: object) -> None:
    if not _is_number(fraction) or not 0 < fraction <= 1:
        raise InputError(f"schedule.fraction={fraction}: expected a share of all steps, above 0 and at most 1")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
