"""What the YAML files configure, and the check that their keys are the arguments of it."""

import inspect

from hydra.utils import get_object
from omegaconf import DictConfig

from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.models.feature_decoder import FeatureDecoder
from uniad_lightning.settings import conf_dir
from uniad_lightning.training.method import parts_of

CONF = conf_dir()
# Given by code: what only a built part or the trainer knows.
SUPPLIED = {
    "uniad_lightning.data.datamodule.UnifiedDataModule": {"mean", "std"},
    "uniad_lightning.data.synthetic.dataset.write_synthetic": {"root"},
    "torch.optim.Adam": {"params"},
    "torch.optim.AdamW": {"params"},
    "torch.optim.SGD": {"params"},
}

# Classes that hand further keywords on, and to what.
HANDED_ON = {
    "lightning.pytorch.strategies.DDPStrategy": "torch.nn.parallel.DistributedDataParallel",
}

FREE = {"lightning", "torch"}  # third-party classes may have arguments that we leave at their defaults


def targets(node):
    if isinstance(node, DictConfig):
        if node.get("_target_"):
            yield node
        for key in node:
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                yield from targets(child)


def arguments(target):
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(get_object(target)).parameters
    return {name: p for name, p in found.items() if p.kind not in variable}


def supplied(target):
    """The arguments of a target that code gives, by the kind of thing it is."""
    found = get_object(target)
    if isinstance(found, type) and issubclass(found, AnomalyModule):
        return parts_of(found)
    if target.startswith("uniad_lightning.models.") and "channels" in arguments(target):
        return {"channels", "grid", "image_size"} if found is FeatureDecoder else {"channels"}
    if target.startswith("uniad_lightning.data.layouts."):
        return {"root", "categories", "train_needed"}
    if target.startswith("uniad_lightning.training.schedules."):
        return {"optimizer", "total_steps"}
    return SUPPLIED.get(target, set())


def check_arguments(node):
    target = node._target_
    parameters = arguments(target)
    given = {str(key) for key in node if key not in ("_target_", "_partial_")}
    known = parameters.keys() | (arguments(HANDED_ON[target]).keys() if target in HANDED_ON else set())
    assert given <= known, f"{target} has no argument {given - known}"
    needed = {name for name, p in parameters.items() if p.default is p.empty}
    assert needed <= given | supplied(target), f"{target}: {needed - given} is not configured"
    if target.split(".")[0] not in FREE:
        optional = set(parameters) - given - supplied(target)
        assert not optional, f"{target}: {optional} is in no YAML file, so no user can find it"
