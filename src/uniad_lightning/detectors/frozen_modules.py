"""A backbone that learns but for its first modules."""

from torch import nn

from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.initialization import check_counts


def freeze_first(backbone: Backbone, count: int) -> list[nn.Module]:
    """Keep the weights of the first `count` modules of `backbone`, which are returned.

    Raises InputError where it has fewer, or all of it is frozen anyway.
    """
    check_counts({"frozen_modules": count}, least=0)
    if not backbone.trainable:
        raise InputError("backbone.trainable=false: this method trains its backbone; leave it out")
    modules = list(backbone.model.children())
    if count > len(modules):
        raise InputError(f"model.frozen_modules={count}: {backbone.name} has {len(modules)} modules")
    for module in modules[:count]:
        module.requires_grad_(False)
    return modules[:count]
