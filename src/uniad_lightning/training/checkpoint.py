"""Checkpoints: tensors and plain values, written whole or not at all, with the configuration inside."""

from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import nn

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.selection import lots
from uniad_lightning.errors import InputError, one_line, system_reason
from uniad_lightning.files.sealed import seal_archive, write_whole
from uniad_lightning.files.torch_file import read_torch_file
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.written_files import note
from uniad_lightning.training.checkpoint_format import FORMAT, upgrade
from uniad_lightning.training.train_images import image_names, pack_names


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a kill at any moment leaves the old checkpoint or the new one.

    Lightning's own stages in the system's temporary folder, from where a move to another file system is a copy. A
    checkpoint ends with a digest (`sealed`). Raises InputError where it cannot be written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save `checkpoint` at `path`."""
        target = Path(path)
        note(target)
        content = BytesIO()  # a full disk meets torch's own writer with an error of no kind, or ends the process
        torch.save(checkpoint, content)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, seal_archive(content))
        except OSError as error:
            kept = f" and stays as it was, go on with ckpt_path={target}" if target.is_file() else ""
            raise InputError(f"{target}: cannot be written{kept}; {system_reason(error)}") from error


class CheckpointConfig(L.Callback):
    """Puts what a detector needs on another machine into every checkpoint: plain values and tensors only.

    `config` is the resolved configuration, `categories` the names of what was trained on, `trained` which images these
    were (`selection.lots`; with those of `started`, a checkpoint the training started from), `images` the names of
    those of this training alone, in their order, and `ignore`, where there is one, the picture of what is not judged.
    """

    def __init__(self, *, config: dict[str, Any], started: dict[str, Any] | None = None):
        self.config = config
        self.before = (started or {}).get("trained", torch.zeros(0, dtype=torch.int64))
        self.images: torch.Tensor | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning while it puts a checkpoint together."""
        data: UnifiedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        found = {"white_level": data.white_level}  # the number in place of `auto`
        checkpoint["format"] = FORMAT
        checkpoint["config"] = {**self.config, "data": {**self.config["data"], **found}}
        checkpoint["categories"] = sorted({record.category for record in data.splits.train})
        if self.images is None:
            self.images = pack_names(image_names(data.splits.train, data.root))
        checkpoint["images"] = self.images
        checkpoint["trained"] = torch.cat([self.before, lots(data.splits.train)]).unique()
        if data.framing.ignore is not None:
            checkpoint["ignore"] = pack_ignored(data.framing.ignore)


def pack_ignored(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool as plain values and a tensor of an eighth of its size."""
    return {"size": list(mask.shape), "bits": torch.from_numpy(np.packbits(mask))}


def unpack_ignored(packed: dict[str, Any]) -> np.ndarray:
    """The opposite of `pack_ignored`."""
    height, width = packed["size"]
    return np.unpackbits(packed["bits"].numpy(), count=height * width).reshape(height, width).astype(bool)


def update_checkpoint(path: str, **entries: Any) -> None:
    """Put `entries`, plain values and tensors, into a checkpoint, which stays whole if this is interrupted."""
    AtomicCheckpointIO().save_checkpoint({**load_checkpoint(path), **entries}, str(expand(path)))


def load_checkpoint(path: str, key: str = "ckpt_path") -> dict[str, Any]:
    """A checkpoint of this package: tensors and plain values, on the CPU; InputError names `key` for another file."""
    file = expand(path)
    if not file.is_file():
        found = "is a folder" if file.is_dir() else "no such file"
        last = file / "checkpoints" / "last.ckpt"
        expected = last if last.is_file() else "a checkpoint such as RUN/checkpoints/last.ckpt"
        raise InputError(f"{key}={path}: {found}; expected {expected}")
    checkpoint = read_torch_file(file, f"{key}={path}")
    if not isinstance(checkpoint, dict) or not {"config", "state_dict", "loops"} <= checkpoint.keys():
        raise InputError(f"{key}={path}: is no checkpoint of uniad-lightning; expected one written by uniad train")
    return upgrade(checkpoint, f"{key}={path}")


def load_weights(module: nn.Module, checkpoint: dict[str, Any], path: str, key: str = "ckpt_path") -> None:
    """Put the weights of a loaded checkpoint into `module`; InputError, with `key`, names tensors that do not fit."""
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise InputError(f"{key}={path}: does not fit its own configuration; {one_line(error)}") from None
