"""Checkpoints: tensors and plain values, written whole or not at all, with the configuration inside."""

import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import nn

from uniad_lightning.errors import InputError, one_line


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill at any moment leaves the old checkpoint or the new one.

    Lightning's own stages in the system's temporary folder, from where a move to another file system is a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save `checkpoint` at `path`."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        torch.save(checkpoint, temporary)
        temporary.replace(target)


class CheckpointConfig(L.Callback):
    """Puts the resolved configuration, plain values only, into every checkpoint under `config`."""

    def __init__(self, *, config: dict[str, Any]):
        self.config = config

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning while it puts a checkpoint together."""
        checkpoint["config"] = self.config


def load_checkpoint(path: str) -> dict[str, Any]:
    """A checkpoint of this package: tensors and plain values, on the CPU. Raises InputError for any other file."""
    if not Path(path).is_file():
        raise InputError(f"ckpt_path={path}: no such file; expected a checkpoint such as RUN/checkpoints/last.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or foreign file
        raise InputError(f"ckpt_path={path}: cannot be read as a checkpoint; {one_line(error)}") from None
    if not isinstance(checkpoint, dict) or not {"config", "state_dict", "loops"} <= checkpoint.keys():
        raise InputError(f"ckpt_path={path}: is no checkpoint of uniad-lightning; expected one written by uniad train")
    return checkpoint


def load_weights(module: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    """Put the weights of a loaded checkpoint into `module`; InputError names the tensors that do not fit."""
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(f"ckpt_path={path}: does not fit its own configuration; {one_line(error)}") from None
