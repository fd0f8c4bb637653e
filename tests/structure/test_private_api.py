"""Private names of libraries that the package uses: each is in the table, and each still does what is used of it."""

import ast
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import lightning as L
import pytest
import torch
from torch import nn

from support.paths import SOURCE


class Use(NamedTuple):
    """A private name: its library and owner, what the package does with it, and whether it still can."""

    library: str
    owner: str
    purpose: str
    works: Callable[[], bool]


def _launcher_of_a_strategy():
    from lightning.pytorch.strategies import DDPStrategy

    strategy, launcher = DDPStrategy(), object()
    strategy._launcher = launcher
    return strategy.launcher is launcher


def _launcher_of_processes():
    from lightning.fabric.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

    launcher = _SubprocessScriptLauncher(LightningEnvironment(), 2, 1)
    kept = launcher.cluster_environment, launcher.num_processes, launcher.num_nodes, launcher.procs
    return kept[1:] == (2, 1, []) and callable(launcher._call_children_scripts) and callable(launcher.kill)


def _parser_of_hydra():
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    given = parser.parse_intermixed_args(["a=1", "--config-dir", "my", "b=2", "-m"])
    expected = (["a=1", "b=2"], "my", None, None, True)
    kept = given.overrides, given.config_dir, given.config_name, given.config_path, given.multirun
    return kept == expected and "[--shell-completion]" in parser.format_usage()


def _wandb_arguments():
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(project="named", mode="offline")._wandb_init["project"] == "named"


def _model_of_a_page():
    reports = pytest.importorskip("wandb_workspaces.reports.v2")
    page = reports.Report(project="p", entity="e", title="shown", blocks=[reports.P("text")])
    spec = page._to_model().spec
    return "text" in spec.model_dump_json(by_alias=True) and type(spec).model_validate is not None


def _states_of_a_metric():
    from torchmetrics import SumMetric

    return isinstance(SumMetric()._defaults, dict) and SumMetric()._is_synced is False


def _tree_of_torch():
    from torch.utils._pytree import tree_flatten, tree_unflatten

    leaves, spec = tree_flatten({"b": 1, "a": 2})
    return tree_unflatten(leaves, spec) == {"b": 1, "a": 2}


def _version_of_a_tensor():
    tensor = torch.zeros(2)
    before = tensor._version
    tensor.add_(1)
    return tensor._version > before


def _convolution():
    layer, image = nn.Conv2d(1, 2, 3), torch.ones(1, 1, 5, 5)
    return torch.equal(layer._conv_forward(image, layer.weight, layer.bias), layer(image))


def _gradient_of_softmax():
    scores = torch.randn(3, 4, requires_grad=True)
    weights, given = scores.softmax(-1), torch.randn(3, 4)
    weights.backward(given)
    found = torch.ops.aten._softmax_backward_data(given, weights.detach(), -1, torch.float32)
    return torch.allclose(found, scores.grad)


def _move_of_a_module():
    layer = nn.Linear(2, 2)
    layer._apply(lambda tensor: tensor.double())
    return layer.weight.dtype == torch.float64


def _step_of_a_trainer():
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return trainer.fit_loop.epoch_loop._batches_that_stepped == 0


PROCESSES = Use("lightning", "the launcher of processes", "watches the processes of a training", _launcher_of_processes)
STATES = Use("torchmetrics", "Metric", "gathers states from several processes", _states_of_a_metric)
USES = {
    "hydra._internal": Use("hydra-core", "hydra", "parses options and overrides in any order", _parser_of_hydra),
    "_SubprocessScriptLauncher": PROCESSES,
    "_call_children_scripts": PROCESSES,
    "_launcher": Use("lightning", "Strategy", "puts its own launcher into a strategy", _launcher_of_a_strategy),
    "_batches_that_stepped": Use("lightning", "the loop of an epoch", "logs at Lightning's step", _step_of_a_trainer),
    "_wandb_init": Use("lightning", "WandbLogger", "drops an argument that W&B warns of", _wandb_arguments),
    "_to_model": Use("wandb-workspaces", "Report and Workspace", "checks a page before it is sent", _model_of_a_page),
    "_defaults": STATES,
    "_is_synced": STATES,
    "_apply": Use("torch", "Module", "keeps states in their precision", _move_of_a_module),
    "_version": Use("torch", "Tensor", "finds out whether weights have changed", _version_of_a_tensor),
    "_conv_forward": Use("torch", "Conv2d", "convolves an image that it has padded itself", _convolution),
    "_softmax_backward_data": Use("torch", "torch.ops.aten", "computes a gradient of attention", _gradient_of_softmax),
    "torch.utils._pytree": Use("torch", "torch.utils", "finds out the order of a program's outputs", _tree_of_torch),
}
# Private by their underscore alone: documented names of NamedTuple and os, and the key of a class in a configuration.
DOCUMENTED = {"_replace", "_asdict", "_fields", "_make", "_exit", "_target_"}


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.AST) -> set[str]:
    """The names that a module defines: functions, classes, variables, and attributes of `self`."""
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    stored = [node for node in ast.walk(tree) if isinstance(getattr(node, "ctx", None), ast.Store)]
    names |= {node.id for node in stored if isinstance(node, ast.Name)}
    return names | {n.attr for n in stored if isinstance(n, ast.Attribute) and ast.unparse(n.value) in ("self", "cls")}


def private_names(text: str) -> set[str]:
    """The private names in a module's text that it does not define itself: attributes, imported names, modules."""
    tree = ast.parse(text)
    own, found = _defined(tree), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            if node.attr not in own or ast.unparse(node.value) == "super()":
                found.add(node.attr)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.name for alias in node.names if _is_private(alias.name)}
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            for parts in (module.split(".") for module in modules):
                places = [place for place, part in enumerate(parts) if _is_private(part)]
                found |= {".".join(parts[: place + 1]) for place in places[:1]}
    return found - DOCUMENTED


def _places(name: str) -> str:
    paths: list[Path] = [path for path in sorted(SOURCE.rglob("*.py")) if name in private_names(path.read_text())]
    return ", ".join(path.relative_to(SOURCE).as_posix() for path in paths)


def test_the_table_holds_every_private_name_and_no_other():
    used = set().union(*(private_names(path.read_text(encoding="utf-8")) for path in SOURCE.rglob("*.py")))
    unlisted, unused = sorted(used - USES.keys()), sorted(USES.keys() - used)
    assert not unlisted, (
        f"{_places(unlisted[0])}: uses {unlisted[0]}, private to its library; use public API, or add it to USES here"
    )
    assert not unused, f"{unused[0]}: is in USES here and nowhere in the package; take it out"


@pytest.mark.parametrize("name", USES)
def test_a_private_name_still_works(name):
    use = USES[name]
    try:
        works, reason = use.works(), "it does something else"
    except Exception as error:
        works, reason = False, f"{type(error).__name__}: {error}"
    assert works, (
        f"{use.library} {version(use.library)} has changed {name} of {use.owner}, by which {_places(name)} "
        f"{use.purpose} ({reason}); change it there, or require an earlier release in pyproject.toml"
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import hydra._internal.utils", {"hydra._internal"}),
        ("from lightning.launchers import _Launcher", {"_Launcher"}),
        ("from torch.utils._pytree import tree_map", {"torch.utils._pytree"}),
        ("trainer.strategy._launcher = 1", {"_launcher"}),
        ("class A(B):\n    def _f(self):\n        return super()._f()", {"_f"}),
        ("class A:\n    def f(self):\n        self._own = row._replace(a=1)\n        self._own()", set()),
        ("def _own(): ...\n_own()\nb.__dict__", set()),
    ],
)  # fmt: skip
def test_private_names_are_found(text, names):
    assert private_names(text) == names


def test_hydra_has_its_plugins_by_name():
    """Undocumented, though without an underscore: `sweeps/search.py` registers its sweeper there."""
    from hydra.core.plugins import Plugins

    known = getattr(Plugins.instance(), "class_name_to_class", None)
    assert isinstance(known, dict), f"hydra-core {version('hydra-core')} has none: change sweeps/search.py"


def test_a_change_is_one_sentence(monkeypatch):
    monkeypatch.setitem(USES, "_version", USES["_version"]._replace(works=lambda: torch.zeros(2)._absent))
    with pytest.raises(AssertionError, match=r"torch \d.* has changed _version of Tensor, by which models/"):
        test_a_private_name_still_works("_version")
