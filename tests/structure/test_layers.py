"""Who may import whom: DESIGN's table of levels and its fences, read from the source with `ast`.

Imports inside functions and under `TYPE_CHECKING` count: they are dependencies, too. A package's `__init__` is run
before every module in it, so it is on level 0 and may hold a docstring and little else.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = "uniad_lightning"
SOURCE = Path(__file__).parents[1] / "src" / PACKAGE

# A module may import modules of its own level and below.
LEVELS = {
    "__init__": 0,
    "models.__init__": 0,
    "data.__init__": 0,
    "errors": 0,
    "home": 0,
    "types": 0,
    "sealed": 0,
    "torch_file": 1,
    "trust": 4,
    "models.neighbor_mask": 1,
    "models.construction": 1,
    "models.decoders": 1,
    "models.jitter": 1,
    "models.standardize": 1,
    "models.dropout": 1,
    "models.folding": 1,
    "models.static_padding": 1,
    "scoring": 1,
    "resampling": 1,
    "threshold": 1,
    "familiarity": 1,
    "losses": 1,
    "histogram": 1,
    "metrics": 1,
    "roc": 1,
    "precision": 1,
    "recount": 1,
    "refinement": 1,
    "uncertainty": 1,
    "randomness": 1,
    "data.records": 1,
    "data.formats": 1,
    "data.once": 1,
    "data.raw_bytes": 1,
    "data.image_file": 2,
    "data.deep": 2,
    "data.white_level": 3,
    "data.published": 1,
    "data.listing": 1,
    "data.naming": 1,
    "data.passed_over": 1,
    "data.mask_names": 1,
    "data.text_files": 1,
    "data.surface": 1,
    "data.products": 1,
    "data.camera": 1,
    "models.state_shapes": 1,
    "models.coreset": 1,
    "models.memory_bank": 2,
    "models.gaussian_grid": 2,
    "models.transformer": 2,
    "models.backbone": 2,
    "data.mvtec": 2,
    "data.visa": 2,
    "data.btad": 2,
    "data.mpdd": 2,
    "data.real_iad": 2,
    "data.mvtec_loco": 2,
    "data.mvtec_ad2": 2,
    "data.mvtec_3d": 2,
    "data.cifar10": 2,
    "data.finding": 2,
    "data.recognising": 2,
    "data.folder": 2,
    "data.meta": 2,
    "data.selection": 2,
    "data.sampling": 2,
    "data.synthetic": 2,
    "data.image": 2,
    "data.transforms": 2,
    "models.uniad": 3,
    "models.mlp": 3,
    "models.cnn": 3,
    "models.vanilla": 3,
    "models.feature_decoder": 3,
    "data.framing": 3,
    "data.checking": 3,
    "data.kolektor": 3,
    "data.catalogue": 3,
    "data.mix": 3,
    "data.dataset": 3,
    "data.store_folder": 3,
    "data.feature_cache": 3,
    "data.cache_space": 3,
    "data.cached": 4,
    "data.datamodule": 4,
    "module": 4,
    "callbacks": 4,
    "loggers": 4,
    "dashboard": 4,
    "monitors": 4,
    "checkpoint": 4,
    "official": 4,
    "trainer_settings": 4,
    "monitored": 4,
    "interrupts": 0,
    "train_images": 3,
    "build": 5,
    "starting": 5,
    "inspection": 4,
    "detector": 5,
    "calibrate": 5,
    "complexity": 5,
    "exported": 5,
    "graph": 5,
    "onnx_graph": 5,
    "low_precision": 5,
    "agreement": 5,
    "export": 5,
    "data_sets": 7,
    "kept_features": 7,
    "paper_tables": 7,
    "processes": 4,
    "decoding": 4,
    "predictions": 6,
    "deploy": 6,
    "importing": 6,
    "display": 6,
    "run": 6,
    "commands": 0,
    "command_line": 7,
    "completion": 7,
    "explain": 7,
    "jobs": 7,
    "study": 1,
    "search": 7,
    "ranks": 5,
    "settings": 0,
    "texts": 0,
    "devices": 1,
    "written": 1,
    "holding": 4,
    "cli": 7,
    "wandb_pages": 7,
}
# What the package itself offers: imported when it is asked for.
FACE = {"__init__": ("detector",)}

# A package all of whose modules are on one level.
PACKAGE_LEVELS = {"results": 5, "sources": 3}

# The modules, or the packages with all in them, that may not import these of ours.
CLOSED = {"models": ("data",), "data": ("models", "metrics")}

# The only modules that may import these packages.
FENCES = {
    "timm": ("models.backbone",),
    "albumentations": ("data.transforms",),
    "wandb": ("dashboard", "wandb_pages"),
    "wandb_workspaces": ("wandb_pages",),
    "watchdog": ("sources.watching",),
    "cv2": ("data.transforms", "sources.video"),
    "hydra": ("build", "run", "display", "jobs", "search", "command_line", "completion", "explain", "paper_tables"),
    "omegaconf": (
        "build",
        "starting",
        "deploy",
        "importing",
        "run",
        "display",
        "jobs",
        "search",
        "explain",
        "results.gathering",
    ),
    "optuna": ("search", "study"),
    "rich": ("results.tables",),
}
# Optional packages of `uniad export`: imported inside functions, but for modules that only an export imports.
FENCES |= {
    "onnx": ("export", "onnx_graph", "low_precision"),
    "onnxruntime": ("exported", "low_precision"),
}
LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric")
LIGHTNING_LEVEL = 4
NO_TORCH = ("errors", "data.records")


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def _level(module: str) -> int | None:
    """Level of a module as named in the tables, None when they do not have it."""
    by_package = (level for package, level in PACKAGE_LEVELS.items() if _within(module, package))
    return LEVELS.get(module, next(by_package, None))


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


def _breach_inside(module: str, target: str) -> str | None:
    """What is wrong with `module` importing our `target`, None when nothing is."""
    if target in FACE.get(module, ()):
        return None
    level, target_level = _level(module), _level(target)
    if level is not None and target_level is not None and target_level > level:
        return f"{module} (level {level}) imports {target} (level {target_level})"
    for package, closed in CLOSED.items():
        if _within(module, package) and any(_within(target, other) for other in closed):
            return f"{module} imports {target}, which {package}/ must not"
    return None


def _breach_outside(module: str, library: str) -> str | None:
    """What is wrong with `module` importing a package of others, None when nothing is."""
    if library in FENCES and module not in FENCES[library]:
        return f"{module} imports {library}, which only {' and '.join(FENCES[library])} may"
    if library in LIGHTNING and (_level(module) or 0) < LIGHTNING_LEVEL:
        return f"{module} imports {library}, which only level {LIGHTNING_LEVEL} and up may"
    if library == "torch" and module in NO_TORCH:
        return f"{module} imports torch, which it must do without"
    return None


def breaches(source: Path) -> list[str]:
    """Every breach of the tables by the package at `source`, one sentence each."""
    modules = _modules(source)
    found: set[str | None] = set()
    for module, path in modules.items():
        if _level(module) is None:
            found.add(f"{module} has no level: add it to LEVELS in tests/test_layers.py and to DESIGN's table")
        for name in _imported(ast.parse(path.read_text(encoding="utf-8")), module):
            target = _resolve(name, modules)
            found.add(_breach_inside(module, target) if target else _breach_outside(module, name.split(".")[0]))
    return sorted(breach for breach in found if breach)


def test_package_keeps_to_its_levels_and_fences() -> None:
    assert len(_modules(SOURCE)) > 5
    assert breaches(SOURCE) == []


SOUND = {
    "__init__": '"""The package."""',
    "errors": "import difflib",
    "types": "import torch",
    "metrics": "import torch",
    "models/__init__": "",
    "models/backbone": "import timm\nfrom uniad_lightning.errors import InputError",
    "models/uniad": "from uniad_lightning.models import backbone\nfrom .backbone import Pyramid",
    "data/__init__": "",
    "data/records": "from typing import NamedTuple",
    "data/transforms": "import albumentations",
    "data/datamodule": "import lightning\nfrom uniad_lightning.data.records import Record",
    "results/__init__": "",
    "results/plots": "import matplotlib",
    "callbacks": "import lightning",
    "dashboard": "def panel():\n    import wandb",
    "run": "import hydra\nfrom omegaconf import DictConfig\nfrom uniad_lightning import models, results",
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
        ("errors", "import uniad_lightning.types\nimport uniad_lightning.run", "errors (level 0) imports run (level"),
        ("errors", "from uniad_lightning import run", "errors (level 0) imports run (level 6)"),
        ("errors", "def f():\n    from uniad_lightning.run import train", "errors (level 0) imports run (level 6)"),
        ("models/backbone", "from .uniad import UniAD", "models.backbone (level 2) imports models.uniad (level 3)"),
        ("models/backbone", "from ..run import train", "models.backbone (level 2) imports run (level 6)"),
        ("data/__init__", "from .records import Record", "data.__init__ (level 0) imports data.records (level 1)"),
        ("callbacks", "from .results.plots import bars", "callbacks (level 4) imports results.plots (level 5)"),
        ("models/uniad", "from uniad_lightning.data.records import R", "models.uniad imports data.records, which mod"),
        ("models/uniad", "from uniad_lightning import data", "models.uniad imports data.__init__, which models/ must"),
        ("data/datamodule", "import uniad_lightning.models.uniad", "data.datamodule imports models.uniad, which data/"),
        ("data/datamodule", "from uniad_lightning.metrics import M", "data.datamodule imports metrics, which data/"),
        ("models/uniad", "def f():\n    import timm.models", "models.uniad imports timm, which only models.backbone"),
        ("models/uniad", "import importlib\nimportlib.import_module('timm')", "timm"),
        ("data/datamodule", "from albumentations import Flip", "imports albumentations, which only data.transforms"),
        ("run", "import wandb", "run imports wandb, which only dashboard and"),
        ("callbacks", "from omegaconf import DictConfig", "callbacks imports omegaconf, which only build and starting"),
        ("models/uniad", "from hydra.utils import instantiate", "models.uniad imports hydra, which only build and run"),
        ("models/uniad", "import lightning.pytorch as pl", "models.uniad imports lightning, which only level 4 and up"),
        ("data/records", "if TYPE_CHECKING:\n    from torch import Tensor", "data.records imports torch"),
        ("data/novel", "", "data.novel has no level: add it to LEVELS in tests/test_layers.py"),
        ("novel/__init__", "", "novel.__init__ has no level: add it to LEVELS in tests/test_layers.py"),
    ],
)  # fmt: skip
def test_planted_breach_is_found(tmp_path: Path, file: str, text: str, breach: str) -> None:
    found = breaches(_plant(tmp_path, {**SOUND, file: text}))
    assert len(found) == 1
    assert breach in found[0]
