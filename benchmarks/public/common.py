"""What the comparisons share: our detector, weights that are copied, and their code made to run here."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn

from uniad_lightning.detectors.base import AnomalyModule
from uniad_lightning.settings import conf_dir
from uniad_lightning.training.build import build_module

Compared = Iterator[tuple[str, Tensor, Tensor]]  # name, ours, theirs


def detector(*overrides: str) -> AnomalyModule:
    """Our detector as `uniad train OVERRIDES` would build it, with random weights."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return build_module(compose("train", list(overrides)), announce=False).eval()


def copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """Copy parameters and buffers in the order in which both have them; their shapes have to agree."""
    source, target = list(theirs.state_dict().values()), list(ours.state_dict().values())
    for given, taken in zip(source, target, strict=True):
        if given.shape != taken.shape:
            raise SystemExit(f"weights differ in shape: theirs {tuple(given.shape)}, ours {tuple(taken.shape)}")
        taken.copy_(given)


def randomize_batch_norms(network: nn.Module) -> None:
    """Draw what a new batch norm has as zeros and ones, so that no two of them do the same."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1)


def gradient(loss: Tensor, of: Sequence[Tensor]) -> Tensor:
    """The gradient of a loss by several tensors, as one."""
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, of)])


def import_from(folder: Path) -> None:
    """Let modules of a clone's folder be imported by their names."""
    sys.path.insert(0, str(folder))


def package(name: str, folder: Path | None = None, **contents: object) -> None:
    """Put a package with `contents` in the place of one whose own `__init__` would import more than is there.

    Its modules can be imported from `folder`.
    """
    module = ModuleType(name)
    module.__path__ = [] if folder is None else [str(folder)]
    vars(module).update(contents)
    sys.modules[name] = module


def stay_on_the_cpu() -> None:
    """Have calls to `.cuda()` leave tensors and networks where they are."""
    torch.Tensor.cuda = lambda self, *args, **kwargs: self
    nn.Module.cuda = lambda self, *args, **kwargs: self
