"""Images that are no product: all below a folder, or the train images of CIFAR-100 or CIFAR-10 as published."""

from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.data.layouts.cifar10 import CIFAR10, list_cifar10
from uniad_lightning.data.layouts.cifar100 import is_cifar100, list_cifar100
from uniad_lightning.data.layouts.patterns import below
from uniad_lightning.data.records import Packed
from uniad_lightning.errors import InputError


def loose_images(folder: Path, key: str) -> Sequence[Path | Packed]:
    """The images of `folder`, which the setting `key` names.

    Raises InputError for a folder that does not exist or holds no image, and for a damaged file of CIFAR's.
    """
    if not folder.is_dir():
        raise InputError(f"{key}={folder}: is no folder; expected one of images")
    if is_cifar100(folder):
        return list_cifar100(folder)
    if CIFAR10.recognise(folder):
        return [record.image for record in list_cifar10(folder).train]
    found = below(folder)
    if not found:
        raise InputError(
            f"{key}={folder}: holds no images; expected a folder of them, or CIFAR-100, unpacked "
            "(cifar-100-python or cifar-100-binary)"
        )
    return found
