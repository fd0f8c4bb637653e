"""Which classes the configuration in a file may instantiate: those that this package's own configuration names.

A checkpoint may come from anyone, and Hydra calls whatever `_target_` names. So a target must be one that `conf/` has
in the same group, or an optimizer, scheduler, callback, logger or strategy of torch or Lightning in its group; all
other values have to be plain. A user's own classes are instantiated if their packages are named, as in
UNIAD_TRUST=PACKAGE or `Detector.load(..., trust=("PACKAGE",))`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from pkgutil import resolve_name
from types import FunctionType
from typing import Any

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import Strategy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.settings import conf_dir

TARGET = "_target_"
MOST_LEVELS = 32  # of nested dicts and lists: a list in a file may contain itself
MOST_VALUES = 100_000  # a list that a file names many times multiplies at each level; real configurations have hundreds
# By group: the package whose subclasses of the class are allowed as well.
FAMILIES: dict[str, tuple[str, type]] = {
    "optimizer": ("torch.optim", Optimizer),
    "schedule": ("torch.optim.lr_scheduler", LRScheduler),
    "callbacks": ("lightning.pytorch.callbacks", Callback),
    "logger": ("lightning.pytorch.loggers", Logger),
    "trainer": ("lightning.pytorch.strategies", Strategy),
}


def refuse_foreign(config: Any, name: str, trust: str | Sequence[str] = ()) -> None:
    """Raises InputError for a configuration with values that are not plain, or with other targets.

    The message begins with `name`, the file, and names the key at fault; `trust` are the user's own packages, besides
    those of UNIAD_TRUST.
    """
    given = (trust,) if isinstance(trust, str) else trust
    trusted = (*given, *filter(None, os.environ.get("UNIAD_TRUST", "").replace(" ", "").split(",")))
    if not isinstance(config, dict):
        raise InputError(f"{name}: its configuration is not a mapping; expected a checkpoint written by uniad train")
    for key, node in nodes(config, name):
        if isinstance(node, dict) and TARGET in node:
            _refuse_target(f"{key}.{TARGET}".lstrip("."), node, name, trusted)
        elif isinstance(node, str) and "${" in node:
            raise InputError(f"{name}: its {key} is {node!r:.80}, an interpolation; expected plain values")
        elif not isinstance(node, dict | list | tuple | str | int | float | None):
            raise InputError(f"{name}: its {key} is a {type(node).__name__}; expected plain values")


def nodes(config: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Every value of nested dicts and lists with its dotted key, and every key of a dict.

    Raises InputError, beginning with `name`, for one nested too deep, and for too many values.
    """
    pending, count = [("", config, 0)], 0
    while pending:
        key, node, level = pending.pop()
        count += len(node) if isinstance(node, dict | list | tuple) else 0
        if level > MOST_LEVELS:
            raise InputError(f"{name}: its {key[:40]} is nested more than {MOST_LEVELS} levels deep; expected settings")
        if count > MOST_VALUES:
            raise InputError(f"{name}: its {key[:40]} has more than {MOST_VALUES} values; expected settings")
        yield key, node
        if isinstance(node, dict):
            yield from ((f"{key}, a key,", child) for child in node)
            pending += [(f"{key}.{_escaped(child)}".lstrip("."), value, level + 1) for child, value in node.items()]
        elif isinstance(node, list | tuple):
            pending += [(f"{key}[{place}]", value, level + 1) for place, value in enumerate(node)]


def _escaped(name: Any) -> str:
    """A key for a message: an untrusted one may contain line breaks and escape sequences."""
    return repr(str(name))[1:-1]


def _refuse_target(key: str, node: dict[Any, Any], name: str, trusted: Sequence[str]) -> None:
    target, place = node[TARGET], re.split(r"[.\[]", key)[0]
    if isinstance(target, str):
        if target in _named_in_conf().get(place, ()):
            # Called at once, only a class is allowed: a function may write to the folder that it is given.
            if _is_class_name(target) or node.get("_partial_") is True:
                return
        elif _is_of_family(target, place) or _is_trusted(target, trusted, name):
            return
    raise InputError(
        f"{name}: its {key} is {target!r:.120}, which this package does not instantiate there; use another file, or "
        "if that is a class of your own, name its package, as in UNIAD_TRUST=PACKAGE"
    )


def _is_class_name(target: str) -> bool:
    return target.rpartition(".")[2][:1].isupper()


@cache
def _named_in_conf() -> dict[str, frozenset[str]]:
    """The targets in each group of conf/; those in its top-level files belong to a decoder."""
    targets: dict[str, set[str]] = {}
    folder = conf_dir()
    for path in folder.rglob("*.yaml"):
        group = path.relative_to(folder).parts[0] if path.parent != folder else "decoder"
        targets.setdefault(group, set()).update(re.findall(rf"^ *{TARGET}: *([\w.]+)", path.read_text(), re.MULTILINE))
    return {group: frozenset(names) for group, names in targets.items()}


def _is_of_family(target: str, place: str) -> bool:
    module, _, name = target.rpartition(".")
    package, kind = FAMILIES.get(place, ("", object))
    if not module or module != package:
        return False
    named = getattr(import_module(package), name, None)
    return isinstance(named, type) and issubclass(named, kind)


def _is_trusted(target: str, trusted: Sequence[str], name: str) -> bool:
    """Whether a target is a class or function that a trusted package itself defines, not one that it imports."""
    own = [package for package in trusted if target.startswith(f"{package}.")]
    if not own:
        return False
    try:
        named = resolve_name(target)
    except Exception as error:  # importing a module may raise anything
        raise InputError(f"{name}: {target} cannot be imported; {one_line(error)}") from error
    module = getattr(named, "__module__", None) or ""
    return isinstance(named, type | FunctionType) and any(f"{module}.".startswith(f"{package}.") for package in own)
