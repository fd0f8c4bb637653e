"""Trained weights of backbones that are at hand, and the hub that has the others."""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import CacheNotFound

from uniad_lightning.doctor.findings import BROKEN, NOTE, OK, Finding
from uniad_lightning.errors import InputError, one_line
from uniad_lightning.models.backbone.installed_weights import INSTALL, installed_weights
from uniad_lightning.models.backbone.weights import read_weights

_TINY, _LITE = "tiny.safetensors", "tf_efficientnet_lite2"
_SHOWN = 5  # models of the cache that the line names
_ASKED = "timm/resnet18.tv_in1k"  # any that timm's hub has
_SECONDS = 5.0
_BY_FILE = "docs/backbones.md says how weights come by file, without the hub"


def weights() -> Iterator[Finding]:
    """The weights in this package, those of the extra `weights`, and what timm has downloaded into the hub's cache.

    Nobody is asked for anything.
    """
    yield _readable("weights of backbone=tiny", lambda: read_weights(_TINY), "install the package again")
    yield _readable("weights of backbone=efficientnet_lite2", lambda: installed_weights(_LITE), INSTALL)
    yield _in_cache()


def hub() -> Finding:
    """Whether timm's hub answers within five seconds."""
    where = huggingface_hub.constants.ENDPOINT
    try:
        huggingface_hub.HfApi().model_info(_ASKED, timeout=_SECONDS, token=False)
    except Exception as error:  # of the hub's client and of each of those that it stands on
        return Finding(BROKEN, "hub", f"{where} does not answer ({one_line(error)})", _BY_FILE)
    return Finding(OK, "hub", f"{where} answers")


def _readable(subject: str, read: Callable[[], Mapping[str, Any] | None], remedy: str) -> Finding:
    try:
        tensors = read()
    except (InputError, OSError) as error:
        return Finding(BROKEN, subject, str(error), remedy)
    if tensors is None:
        return Finding(NOTE, subject, "not installed", remedy)
    return Finding(OK, subject, f"{len(tensors)} tensors")


def _in_cache() -> Finding:
    folder = Path(huggingface_hub.constants.HF_HUB_CACHE)
    offline = ", and HF_HUB_OFFLINE keeps it from being asked for more" if os.environ.get("HF_HUB_OFFLINE") else ""
    try:
        names = sorted(
            repo.repo_id for repo in huggingface_hub.scan_cache_dir(folder).repos if repo.repo_type == "model"
        )
    except (CacheNotFound, OSError, ValueError):
        names = []
    if not names:
        found = f"{folder} holds no model of the hub{offline}"
        return Finding(NOTE, "weights of other backbones", found, "the first training downloads them, or give a file")
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return Finding(OK, "weights of other backbones", f"{', '.join(names[:_SHOWN])}{more} in {folder}{offline}")
