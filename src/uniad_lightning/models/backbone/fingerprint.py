"""What the features of a backbone depend on: the key under which a cache keeps them."""

import hashlib
from typing import Any

import torch

from uniad_lightning.models.backbone.feature_pyramid import Backbone


def fingerprint(backbone: Backbone) -> dict[str, Any]:
    """Settings, structure and a digest of the weights of `backbone`, as plain values."""
    weights = hashlib.blake2b(digest_size=16)
    for name, value in sorted(backbone.state_dict().items()):
        weights.update(name.encode())
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return {
        "backbone": backbone.name,
        "levels": backbone.levels,
        "channels": backbone.channels,
        "grid": backbone.grid,
        **({} if backbone.resize == "bilinear" else {"resize": backbone.resize}),  # stores of 0.1.0 stay valid
        **({} if backbone.window == 1 else {"window": backbone.window}),
        "structure": hashlib.blake2b(repr(backbone.model).encode(), digest_size=16).hexdigest(),
        "weights": weights.hexdigest(),
    }
