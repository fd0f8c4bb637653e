"""Which method a configuration chooses, and which of its groups that method uses."""

from collections.abc import Sequence
from inspect import signature

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, open_dict

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
        named = get_class(target)
    except Exception as error:  # importing a user's module may raise anything
        raise InputError(
            f"model._target_={target}: {one_line(error)}; expected a detector or a network that can be imported, such "
            "as uniad_lightning.models.uniad.UniAD; set PYTHONPATH to the folder of your own module"
        ) from error
    return named if issubclass(named, AnomalyModule) else FeatureReconstruction


def parts_of(method: type[AnomalyModule]) -> frozenset[str]:
    """The groups and settings that the method's constructor takes."""
    return frozenset(signature(method).parameters) & {*GROUPS, *SETTINGS}


def leave_out_unused(cfg: DictConfig) -> None:
    """Remove from `cfg` what its method does not use; InputError where that was set on the command line."""
    method = method_of(cfg)
    unused = [name for name in (*GROUPS, "standardize") if name not in parts_of(method)]
    overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    _refuse(overrides, unused, method)
    with open_dict(cfg):
        for name in unused:
            cfg.pop(name, None)


def _refuse(overrides: Sequence[str], unused: Sequence[str], method: type[AnomalyModule]) -> None:
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0].partition(".")[0]
        if name in unused:
            fitted = method.one_pass and name in _OF_GRADIENTS
            reason = "is fitted in one pass, without gradients" if fitted else f"does not use {name}"
            raise InputError(f"{override}: {method.__name__} {reason}; leave it out")
