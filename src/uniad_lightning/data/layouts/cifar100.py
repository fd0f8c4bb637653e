"""CIFAR-100 as its authors publish it: images that are no product, for outlier exposure (FCDD+OE)."""

from pathlib import Path

from uniad_lightning.data.images.cifar10_batches import load_batch
from uniad_lightning.data.records import Packed
from uniad_lightning.errors import InputError

_TRAIN = {"cifar-100-python": "train", "cifar-100-binary": "train.bin"}  # the folder of a version, and its file


def is_cifar100(root: Path) -> bool:
    """Whether `root` is the folder of one of its versions, or the one above it; opens no file."""
    return any(folder.is_dir() for folder in _folders(root))


def list_cifar100(root: Path) -> list[Packed]:
    """Its 50,000 train images, in the file's order.

    Raises InputError where the file is missing, truncated, or holds anything but plain data.
    """
    folder = next(folder for folder in _folders(root) if folder.is_dir())
    path = folder / _TRAIN[folder.resolve().name]
    if not path.is_file():
        raise InputError(f"{path}: not found; expected CIFAR-100's train images there, unpack it again")
    return [Packed(path, position) for position in range(len(load_batch(path)[1]))]


def _folders(root: Path) -> list[Path]:
    """Where its versions would lie."""
    return [root] if root.resolve().name in _TRAIN else [root / name for name in _TRAIN]
