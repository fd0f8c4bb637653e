"""Which method a configuration chooses, and which of its groups that method uses."""

from collections.abc import Sequence
from inspect import Parameter, signature
from pkgutil import resolve_name

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict
from torch import nn

import uniad_lightning.training.resolvers  # noqa: F401 - registers them
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import InputError, one_line

GROUPS = ("backbone", "loss", "score", "optimizer", "schedule")  # of the configuration, each instantiated as one object
SETTINGS = ("standardize", "seed")
_OF_GRADIENTS = ("loss", "optimizer", "schedule")


def method_of(cfg: DictConfig) -> type[AnomalyModule]:
    """The detector class that `cfg.model` names; for a network, `FeatureReconstruction`, which trains it.

    Raises InputError for a name that cannot be imported.
    """
    target = cfg.model.get("_target_")
    try:
        named = resolve_name(target)
    except Exception as error:  # importing a user's module may raise anything
        raise InputError(
            f"model._target_={target}: {one_line(error)}; expected a detector or a network that can be imported, such "
            "as uniad_lightning.models.uniad.UniAD; set PYTHONPATH to the folder of your own module"
        ) from error
    if not isinstance(named, type) or not issubclass(named, nn.Module):
        raise InputError(f"model._target_={target}: expected a class that is an AnomalyModule or a torch.nn.Module")
    if issubclass(named, AnomalyModule):
        return named
    if "grid" not in cfg.model:
        raise InputError(
            f"model.grid: not set; a network such as {target} reconstructs features on a grid, like [14, 14]"
        )
    return FeatureReconstruction


def parts_of(method: type[AnomalyModule]) -> frozenset[str]:
    """The groups and settings that the method's constructor takes; all where it takes any keyword."""
    parameters = signature(method).parameters.values()
    known = {*GROUPS, *SETTINGS}
    if any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        return frozenset(known)
    return frozenset(parameter.name for parameter in parameters) & known


def overridden() -> dict[str, str]:
    """The overrides of the command line by their key; none where Python alone composed the configuration."""
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return {override.partition("=")[0].lstrip("+~"): override for override in overrides}


def leave_out_unused(cfg: DictConfig) -> None:
    """Remove from `cfg` what its method does not use; InputError where that was set on the command line.

    A sweep over several methods may set what only some of them use.
    """
    method = method_of(cfg)
    unused = [name for name in (*GROUPS, "standardize") if name not in parts_of(method)]
    _refuse(unused, method)
    with open_dict(cfg):
        for name in unused:
            cfg.pop(name, None)
        has_grid = method is FeatureReconstruction or "grid" in signature(method).parameters
        # A grid that nobody asked this method for is an experiment's or a sweep's, for methods that have one.
        if not has_grid and ("model.grid" not in overridden() or _of_several_methods()):
            cfg.model.pop("grid", None)


def _of_several_methods() -> bool:
    """Whether a sweep varies the method, so that an override may be meant for another one of it."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    return "model" in overridden() and "model" not in HydraConfig.get().job.config.override_dirname.exclude_keys


def _refuse(unused: Sequence[str], method: type[AnomalyModule]) -> None:
    if _of_several_methods():
        return
    for key, override in overridden().items():
        name = key.partition(".")[0]
        if name in unused:
            fitted = method.one_pass and name in _OF_GRADIENTS
            reason = "is fitted in one pass, without gradients" if fitted else f"does not use {name}"
            raise InputError(f"{override}: {method.__name__} {reason}; leave it out")
