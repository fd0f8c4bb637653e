"""Who may import whom: the order of the rooms, no circles, and which room may use which library; read with `ast`.

Imports inside functions and under `TYPE_CHECKING` count: they are dependencies, too.
"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath

import pytest

from support.paths import SOURCE

PACKAGE = "uniad_lightning"

# Lowest first: a room, which is a folder or a file beside the folders, imports only itself and what stands before it.
ROOMS = (
    "__init__",
    "errors",
    "types",
    "exit_status",
    "settings",
    "files",
    "randomness",
    "precision",
    "progress_bar",
    "scoring",
    "heatmap",
    "models",
    "data",
    "metrics",
    "results",
    "data_check",
    "detectors",
    "tracking",
    "sweeps",
    "training",
    "reference",
    "paper",
    "inspection",
    "drift",
    "calibration",
    "prediction",
    "feedback",
    "report",
    "rendering",
    "exporting",
    "serving",
    "doctor",
    "command_line",
)
# What the package itself offers, imported when it is asked for.
OFFERED = {("__init__", "inspection.detector")}
# Rooms that stand side by side: the first may not use the second, though that is lower.
CLOSED = {"data": ("models", "scoring"), "metrics": ("models", "data")}

# The only rooms, folders or modules that may import these libraries.
FENCES = {
    "timm": ("models.backbone",),
    "albumentations": ("data.images.augmentation",),
    "tifffile": ("data.images.channels",),
    "cv2": ("data.images", "data.defects", "prediction.sources.opencv"),
    "httpx": ("prediction.sinks.webhook",),
    "paho": ("prediction.sinks.mqtt",),
    "watchdog": ("prediction.sources.folder_events", "prediction.sources.watch_folder"),
    "mlflow": ("tracking.mlflow_board",),
    "wandb": ("tracking.boards", "paper.wandb_pages"),
    "wandb_workspaces": ("paper.wandb_pages", "paper.wandb_panels"),
    "optuna": ("sweeps",),
    "jinja2": ("report.page",),
    "fastapi": ("serving",),
    "starlette": ("serving",),
    "uvicorn": ("serving",),
    "prometheus_client": ("serving",),
    "onnx": ("exporting",),
    "onnxruntime": ("exporting.low_precision", "inspection.engines.onnx_runtime"),
    "openvino": ("inspection.engines.openvino_runtime",),
    "hydra": ("training", "rendering", "sweeps", "doctor.inference", "command_line"),
    "omegaconf": (
        "training",
        "reference",
        "rendering",
        "calibration",
        "prediction",
        "feedback",
        "report",
        "exporting",
        "serving",
        "sweeps",
        "paper",
        "command_line",
    ),
    "lightning": (
        "data.datamodule",
        "data.steps",
        "data.feature_cache",
        "results.output_folder",
        "detectors",
        "tracking",
        "training",
        "prediction.processes",
        "rendering",
        "command_line",
    ),
    "torch": tuple(room for room in ROOMS if room not in ("errors", "exit_status", "settings", "progress_bar")),
}
NO_TORCH = ("data.records",)


def _within(module: str, place: str) -> bool:
    return module == place or module.startswith(f"{place}.")


def _room(module: str) -> str:
    return module.split(".")[0]


def _folder(module: str) -> PurePosixPath:
    return PurePosixPath(module.replace(".", "/")).parent


def _modules(source: Path) -> dict[str, Path]:
    """Files below `source` by dotted name without the package's; a package's own file is `<name>.__init__`."""
    return {".".join(path.relative_to(source).with_suffix("").parts): path for path in sorted(source.rglob("*.py"))}


def _imported(tree: ast.AST, module: str) -> set[str]:
    """Absolute dotted names that a module imports; of `from a import b` it is a.b, be b a module or not."""
    names: set[str] = set()
    parents = [PACKAGE, *module.split(".")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parents[: -node.level] if node.level else []
            names |= {".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return names


def _resolve(name: str, modules: dict[str, Path]) -> str | None:
    """The module of ours that an absolute dotted name leads to, None when it is of another package."""
    if not _within(name, PACKAGE):
        return None
    parts = name.split(".")[1:]
    while parts:
        for candidate in (".".join(parts), ".".join([*parts, "__init__"])):
            if candidate in modules:
                return candidate
        parts.pop()
    return "__init__"


def _graph(source: Path) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """For each module: the modules of ours that it imports, and the top-level names of other packages."""
    modules = _modules(source)
    own: dict[str, set[str]] = {name: set() for name in modules}
    other: dict[str, set[str]] = {name: set() for name in modules}
    for module, path in modules.items():
        for name in _imported(ast.parse(path.read_text(encoding="utf-8")), module):
            target = _resolve(name, modules)
            if target is None:
                other[module].add(name.split(".")[0])
            elif target != module and (module, target) not in OFFERED:
                own[module].add(target)
    return own, other


def _upward(module: str, target: str) -> str | None:
    """What is wrong with `module` importing our `target`, None when nothing is."""
    rooms = _room(module), _room(target)
    if rooms[0] not in ROOMS:
        return f"{module}: no such room; put it into one, or add the room to ROOMS in {Path(__file__).name}"
    if rooms[1] in ROOMS and ROOMS.index(rooms[1]) > ROOMS.index(rooms[0]):
        return f"{module} imports {target}, which is above it"
    if rooms[1] in CLOSED.get(rooms[0], ()):
        return f"{module} imports {target}, which {rooms[0]} must not"
    return None


def _over_fence(module: str, library: str) -> str | None:
    """What is wrong with `module` importing a package of others, None when nothing is."""
    allowed = FENCES.get(library)
    if allowed is not None and not any(_within(module, place) for place in allowed):
        return f"{module} imports {library}, which only {', '.join(allowed)} may"
    if library == "torch" and module in NO_TORCH:
        return f"{module} imports torch, which it must do without"
    return None


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, nothing when it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _between_folders(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same between folders. What lies in a folder and what lies below it are of one room and may meet."""
    folders: dict[str, set[str]] = {}
    for module, targets in graph.items():
        here = _folder(module)
        for there in map(_folder, targets):
            if here != there and not here.is_relative_to(there) and not there.is_relative_to(here):
                folders.setdefault(str(here), set()).add(str(there))
    return folders


def breaches(source: Path) -> list[str]:
    """Every breach of the tables by the package at `source`, one sentence each."""
    own, other = _graph(source)
    found: set[str | None] = {_upward(module, module) for module in own}
    found |= {_upward(module, target) for module, targets in own.items() for target in targets}
    found |= {_over_fence(module, library) for module, libraries in other.items() for library in libraries}
    for what, graph in (("files", own), ("folders", _between_folders(own))):
        circle = _circle(graph)
        if circle:
            found.add(f"a circle of {what}: {' -> '.join(circle)}")
    return sorted(breach for breach in found if breach)


def test_package_keeps_to_its_rooms_and_fences() -> None:
    assert len(_modules(SOURCE)) > 100
    assert breaches(SOURCE) == []


def test_every_room_has_something_in_it() -> None:
    assert set(ROOMS) == {_room(module) for module in _modules(SOURCE)}


SOUND = {
    "__init__": "def __getattr__(name):\n    from uniad_lightning.inspection.detector import Detector",
    "errors": "import difflib",
    "types": "import torch\nfrom uniad_lightning.errors import InputError",
    "models/__init__": "",
    "models/uniad": "from uniad_lightning.models.backbone import pyramid\nfrom .backbone.pyramid import Pyramid",
    "models/backbone/__init__": "",
    "models/backbone/pyramid": "import timm\nfrom uniad_lightning.errors import InputError",
    "data/__init__": "",
    "data/records": "from typing import NamedTuple",
    "data/images/__init__": "",
    "data/images/augmentation": "import albumentations\nfrom uniad_lightning.data.records import Record",
    "data/datamodule": "import lightning\nfrom uniad_lightning.data.images.augmentation import Augmentation",
    "metrics/__init__": "",
    "metrics/auroc": "import torch",
    "tracking/__init__": "",
    "tracking/boards": "def panel():\n    import wandb",
    "training/__init__": "",
    "training/train": "import hydra\nfrom omegaconf import DictConfig\nfrom uniad_lightning import models, tracking",
    "inspection/__init__": "",
    "inspection/detector": "from uniad_lightning.training import train",
}


def _plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_sound_package_has_no_breach(tmp_path: Path) -> None:
    assert breaches(_plant(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    ("file", "text", "breach"),
    [
        ("errors", "from uniad_lightning.training.train import train", "errors imports training.train, which is above"),
        ("models/uniad", "def f():\n    from ..tracking.boards import g", "models.uniad imports tracking.boards"),
        ("models/uniad", "from uniad_lightning import data", "models.uniad imports data.__init__, which is above it"),
        ("data/datamodule", "import uniad_lightning.models.uniad", "data.datamodule imports models.uniad, which data"),
        ("metrics/auroc", "from uniad_lightning.data.records import R", "metrics.auroc imports data.records, which"),
        ("models/uniad", "def f():\n    import timm.models", "models.uniad imports timm, which only models.backbone"),
        ("models/uniad", "import importlib\nimportlib.import_module('timm')", "models.uniad imports timm"),
        ("data/datamodule", "from albumentations import Flip", "imports albumentations, which only data.images"),
        ("training/train", "import wandb", "training.train imports wandb, which only tracking.boards"),
        ("models/uniad", "from hydra.utils import instantiate", "models.uniad imports hydra, which only training"),
        ("models/uniad", "import lightning.pytorch as pl", "models.uniad imports lightning, which only data.datamod"),
        ("data/records", "if TYPE_CHECKING:\n    from torch import Tensor", "data.records imports torch"),
        ("errors", "import torch", "errors imports torch, which only"),
        ("novel/thing", "", "novel.thing: no such room"),
        ("models/cnn", "from uniad_lightning.models.mlp import MLP", None),
        ("data/layouts/folder", "from uniad_lightning.data.records import Record", None),
    ],
)  # fmt: skip
def test_planted_breach_is_found(tmp_path: Path, file: str, text: str, breach: str | None) -> None:
    found = breaches(_plant(tmp_path, {**SOUND, "models/mlp": "", file: text}))
    assert len(found) == (breach is not None)
    assert breach is None or breach in found[0]


@pytest.mark.parametrize(
    ("files", "circle"),
    [
        (
            {
                "models/uniad": "from uniad_lightning.models.mlp import MLP",
                "models/mlp": "from uniad_lightning.models import uniad",
            },
            "files",
        ),
        (
            {
                "models/backbone/pyramid": "from uniad_lightning.models.layers import norm",
                "models/layers/norm": "",
                "models/layers/attention": "from ..backbone import padding",
                "models/backbone/padding": "",
            },
            "folders",
        ),
    ],
)
def test_planted_circle_is_found(tmp_path: Path, files: dict[str, str], circle: str) -> None:
    found = breaches(_plant(tmp_path, {**SOUND, **files}))
    assert len(found) == 1
    assert found[0].startswith(f"a circle of {circle}: ")
