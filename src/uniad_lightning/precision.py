"""What is computed in float32 whatever the precision of the training, and which precisions a training may have."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from uniad_lightning.errors import InputError

EVALUATION = "32-true"  # features of a frozen backbone, maps, scores and metrics; also in predict, calibrate, export
MIXED = ("bf16-mixed", "16-mixed")  # training steps of the network that learns


@contextmanager
def in_float32(device: torch.device) -> Iterator[None]:
    """Switches off autocast on `device`, where it is on, and on a GPU the rounding of convolutions to TF32."""
    # Even a context without effect would become a node of an exported graph.
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        with _without_tf32(device):
            yield
        return
    with torch.autocast(device.type, enabled=False), _without_tf32(device):
        yield


@contextmanager
def _without_tf32(device: torch.device) -> Iterator[None]:
    """On a GPU cuDNN rounds the inputs of float32 convolutions to 10 bits of mantissa by default."""
    if device.type != "cuda":
        yield
        return
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def check_precision(precision: str) -> None:
    """Raises InputError for a precision, as a trainer names it, that would round the weights or the features."""
    if precision not in (EVALUATION, *MIXED):
        raise InputError(
            f"trainer.precision={precision}: the weights of the backbone and of the network would not be float32; "
            f"expected {EVALUATION}, or {' or '.join(MIXED)}, which compute only the training steps of the "
            "network in half precision"
        )
