"""The decoder in a checkpoint of `train_decoder`, and the features that it belongs to."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import InputError
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.models.backbone.fingerprint import fingerprint
from uniad_lightning.models.feature_decoder import FeatureDecoder
from uniad_lightning.training.checkpoint import load_checkpoint, load_weights
from uniad_lightning.training.trusted_targets import refuse_foreign
from uniad_lightning.types import Size

RENDERS = "renders"  # the checkpoint's key of `features_of`


def features_of(backbone: Backbone, image_size: Size) -> dict[str, Any]:
    """The features of a decoder as plain values: the backbone's `fingerprint` and the images' (height, width)."""
    return {**fingerprint(backbone), "image_size": image_size}


def build_decoder(cfg: DictConfig, backbone: Backbone, image_size: Size) -> FeatureDecoder:
    """The decoder of the config group `cfg` for the features of `backbone` at `image_size`, untrained."""
    return instantiate(cfg, channels=sum(backbone.channels), grid=backbone.grid, image_size=image_size)


def load_decoder(path: str, backbone: Backbone, image_size: Size, *, ckpt_path: str) -> FeatureDecoder:
    """The decoder in the file `path` of `train_decoder`, to render the features of the detector in `ckpt_path`.

    Raises InputError for another file, and for a decoder of other features.
    """
    checkpoint = load_checkpoint(path, key="decoder")
    refuse_other_features(features_of(backbone, image_size), checkpoint, path, ckpt_path=ckpt_path)
    refuse_foreign(checkpoint["config"], f"decoder={path}")
    decoder = build_decoder(OmegaConf.create(checkpoint["config"]["decoder"]), backbone, image_size)
    load_weights(nn.ModuleDict({"decoder": decoder}), checkpoint, path, key="decoder")
    return decoder


def refuse_other_features(features: dict[str, Any], checkpoint: dict[str, Any], path: str, *, ckpt_path: str) -> None:
    """Raises InputError for a checkpoint without a decoder, or with one of other `features` than of `ckpt_path`."""
    remedy = f"train one with uniad train_decoder ckpt_path={ckpt_path}"
    if RENDERS not in checkpoint:
        raise InputError(f"decoder={path}: is a detector, no decoder; {remedy}")
    rendered = checkpoint[RENDERS]
    for name in sorted(features.keys() | rendered.keys()):  # a setting at its default is in neither
        if rendered.get(name) != features.get(name):
            found, value = rendered.get(name, "its default"), features.get(name, "its default")
            raise InputError(f"decoder={path}: is for {name}={found}, and {ckpt_path} has {value}; {remedy}")


def reconstructing(module: AnomalyModule, path: str) -> FeatureReconstruction:
    """`module` as a detector that reconstructs features; raises InputError for any other detector of `path`."""
    if not isinstance(module, FeatureReconstruction):
        raise InputError(
            f"ckpt_path={path}: {type(module).__name__} reconstructs no features that could be shown; expected a "
            "detector trained with model=uniad, denoiser, mlp, cnn or transformer"
        )
    return module
