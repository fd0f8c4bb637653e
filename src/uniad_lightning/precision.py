"""What is computed in float32 whatever the precision of the training, and which precisions a training may have."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from uniad_lightning.errors import InputError

EVALUATION = "32-true"  # features of a frozen backbone, maps, scores and metrics; also in calibrate, export and predict
MIXED = ("bf16-mixed", "16-mixed")  # training steps of the network that learns
INFERENCE = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # what uniad predict precision= may be

_reduced: ContextVar[bool] = ContextVar("reduced", default=False)


@contextmanager
def at_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Matrix products and convolutions at one of `INFERENCE`; `in_float32` has no effect inside of a lower one.

    Raises InputError for any other.
    """
    if precision not in INFERENCE:
        raise InputError(f"precision={precision}: expected {', '.join(INFERENCE)}")
    dtype = INFERENCE[precision]
    if dtype is None:
        yield
        return
    before = _reduced.set(True)
    try:
        with torch.autocast(device.type, dtype):
            yield
    finally:
        _reduced.reset(before)


@contextmanager
def in_float32(device: torch.device) -> Iterator[None]:
    """Switches off autocast on `device`, where it is on, and on a GPU the rounding of convolutions to TF32."""
    if _reduced.get():
        yield
        return
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
