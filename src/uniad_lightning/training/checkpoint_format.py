"""The format of checkpoints, and the upgrade of those of an earlier one.

1: version 0.1.0. 2: has its format as an entry, current class names, and all settings.
"""

from typing import Any

from uniad_lightning import __version__
from uniad_lightning.errors import InputError
from uniad_lightning.training.trusted_targets import nodes

FORMAT = 2

# Where the modules of format 1 are now, as far as a configuration may name them.
_MOVED = {
    "losses": "models.losses",
    "models.backbone": "models.backbone.feature_pyramid",
    "models.jitter": "models.layers.jitter",
    "module": "training.schedules",
    "callbacks": "training.callbacks",
    "monitors": "tracking.monitors",
    "dashboard": "tracking.boards",
    "data.transforms": "data.images.augmentation",
    "data.framing": "data.images.tiling",
    "data.synthetic": "data.synthetic.dataset",
    "data.meta": "data.layouts.json_lines",
    **{
        f"data.{name}": f"data.layouts.{name}"
        for name in (
            "btad", "cifar10", "folder", "kolektor", "mix", "mvtec", "mvtec_3d", "mvtec_ad2", "mvtec_loco", "real_iad",
            "visa",
        )
    },
}  # fmt: skip

# The same for classes that are no longer where the rest of their module is.
_MOVED_CLASSES = {"callbacks.TrainingProgress": "training.progress", "callbacks.HeatmapPanels": "training.heatmaps"}

# Settings that format 1 does not have, with the values that it used.
_NEW: dict[str, dict[str, Any]] = {
    "backbone": {"resize": "bilinear", "window": 1},
    "trainer": {"accumulate_grad_batches": 1},
}


def upgrade(checkpoint: dict[str, Any], name: str) -> dict[str, Any]:
    """A checkpoint of this format or an earlier one as one of this format.

    Raises InputError, beginning with `name`, for a later one.
    """
    written = checkpoint.get("format", 1)
    if not isinstance(written, int) or written > FORMAT:
        raise InputError(
            f"{name}: has format {written!r:.20}; uniad-lightning {__version__} reads formats up to {FORMAT}, update it"
        )
    if written == FORMAT:
        return checkpoint
    return {**checkpoint, "format": FORMAT, "config": upgrade_config(checkpoint["config"], name)}


def upgrade_config(config: Any, name: str) -> Any:
    """A configuration of format 1 as one of this format; one of this format is returned unchanged.

    Raises InputError, beginning with `name`, for one that is nested too deep or holds too many values.
    """
    for _ in nodes(config, name):  # to its end: what follows would take as long as it is large
        pass
    config = _renamed(config)
    for group, values in _NEW.items():
        if isinstance(config, dict) and isinstance(config.get(group), dict):
            config = {**config, group: {**values, **config[group]}}
    return config


def _renamed(node: Any) -> Any:
    """Nested dicts and lists with the current names of targets."""
    if isinstance(node, dict):
        return {key: _moved(value) if key == "_target_" else _renamed(value) for key, value in node.items()}
    return [_renamed(value) for value in node] if isinstance(node, list) else node


def _moved(target: Any) -> Any:
    if not isinstance(target, str) or not target.startswith("uniad_lightning."):
        return target
    old = target.removeprefix("uniad_lightning.")
    module, _, name = old.rpartition(".")
    return f"uniad_lightning.{_MOVED_CLASSES.get(old) or _MOVED.get(module, module)}.{name}"
