"""Checkpoints: tensors and plain values, the configuration included, written completely or not at all."""

from io import BytesIO
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import nn

from uniad_lightning.data.datamodule import UnifiedDataModule
from uniad_lightning.data.selection import image_groups
from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.errors import InputError, one_line, system_reason
from uniad_lightning.files.atomic import remove_left, write_whole
from uniad_lightning.files.mask_bits import unpack_mask
from uniad_lightning.files.sealed import seal_archive
from uniad_lightning.files.torch_file import read_torch_file
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.run_folder import LAST
from uniad_lightning.results.written_files import note
from uniad_lightning.training.checkpoint_entries import check_entries, is_whole
from uniad_lightning.training.checkpoint_format import FORMAT, upgrade
from uniad_lightning.training.train_images import image_names, pack_names


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that after a kill at any moment there is the old or the new checkpoint.

    Lightning's own goes through the system's temporary folder, and a move to another file system is a copy. A
    checkpoint ends with a digest (`sealed`). Raises InputError where it cannot be written.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Save `checkpoint` at `path`."""
        target = Path(path)
        note(target)
        content = BytesIO()  # on a full disk torch's own writer raises an unspecific error, or ends the process
        torch.save(checkpoint, content)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, seal_archive(content).getbuffer())
        except OSError as error:
            kept = f" and is unchanged, continue with ckpt_path={target}" if target.is_file() else ""
            raise InputError(f"{target}: cannot be written{kept}; {system_reason(error)}") from error


class CheckpointConfig(L.Callback):
    """Puts what a detector needs on another machine into every checkpoint: plain values and tensors only.

    `config` is the resolved configuration, `categories` the names of the trained ones, `trained` the train images as
    `selection.image_groups` numbers them (with those of `initial`, the checkpoint the training started from), `images`
    the names of this training's own, in order, and `ignore`, where there is one, the mask of pixels to ignore.
    """

    def __init__(self, *, config: dict[str, Any], initial: dict[str, Any] | None = None):
        self.config = config
        self.before = (initial or {}).get("trained", torch.zeros(0, dtype=torch.int64))
        self.images: torch.Tensor | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning before it writes a checkpoint."""
        data: UnifiedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        level = {"white_level": data.white_level}  # the number in place of `auto`
        checkpoint["format"] = FORMAT
        checkpoint["config"] = {**self.config, "data": {**self.config["data"], **level}}
        trained = {record.category for record in data.splits.train}
        known = pl_module.known_categories(trained) if isinstance(pl_module, AnomalyModule) else sorted(trained)
        checkpoint["categories"] = known
        if self.images is None:
            self.images = pack_names(image_names(data.splits.train, data.root))
        checkpoint["images"] = self.images
        checkpoint["trained"] = torch.cat([self.before, image_groups(data.splits.train)]).unique()
        if data.framing.ignore is not None:
            checkpoint["ignore"] = pack_ignored(data.framing.ignore)


def pack_ignored(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool as plain values and a tensor of an eighth of its size."""
    return {"size": list(mask.shape), "bits": torch.from_numpy(np.packbits(mask))}


def unpack_ignored(packed: dict[str, Any]) -> np.ndarray:
    """The opposite of `pack_ignored`; ValueError for anything else."""
    bits, size = packed["bits"], packed["size"]
    whole = is_whole(bits, 1) and bits.dtype == torch.uint8
    sides = isinstance(size, list | tuple) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if not whole or not sides or len(bits) != -(-size[0] * size[1] // 8):
        raise ValueError("the mask of ignored pixels is not of its size")
    return unpack_mask(bits.numpy(), size)


def update_checkpoint(path: str, **entries: Any) -> None:
    """Put `entries`, plain values and tensors, into a checkpoint, which stays whole if this is interrupted.

    An entry that is None is removed from it.
    """
    changed = {**load_checkpoint(path), **entries}
    kept = {name: value for name, value in changed.items() if value is not None}
    remove_left([expand(path)])
    AtomicCheckpointIO().save_checkpoint(kept, str(expand(path)))


def load_checkpoint(path: str, key: str = "ckpt_path") -> dict[str, Any]:
    """A checkpoint of this package: tensors and plain values, on the CPU; InputError with `key` for another file."""
    file = expand(path)
    if not file.is_file():
        problem = "is a folder" if file.is_dir() else "no such file"
        last = file / LAST
        expected = last if last.is_file() else f"a checkpoint such as RUN/{LAST}"
        raise InputError(f"{key}={path}: {problem}; expected {expected}")
    checkpoint = read_torch_file(file, f"{key}={path}")
    if not isinstance(checkpoint, dict) or not {"config", "state_dict", "loops"} <= checkpoint.keys():
        raise InputError(f"{key}={path}: is not a checkpoint of uniad-lightning; expected one written by uniad train")
    check_entries(checkpoint, f"{key}={path}")
    return upgrade(checkpoint, f"{key}={path}")


def load_weights(module: nn.Module, checkpoint: dict[str, Any], path: str, key: str = "ckpt_path") -> None:
    """Put the weights of a loaded checkpoint into `module`; InputError, with `key`, names tensors that do not fit."""
    try:
        module.load_state_dict(checkpoint["state_dict"])
    except (RuntimeError, KeyError, TypeError) as error:  # the last two of what a module keeps beside its tensors
        raise InputError(f"{key}={path}: does not fit its own configuration; {one_line(error)}") from None
