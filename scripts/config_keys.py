"""The keys that a YAML file of `conf/` sets: value, meaning, and the type that the signature of the target says."""

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hydra.utils import get_object

# How annotations are written for a reader of YAML.
_PLAIN = (
    (r"\b(?:\w+\.)+(\w+)", r"\1"),  # names without their modules
    (r"^InitVar\[(.*)\]$", r"\1"),
    (r"^Optional\[(.*)\]$", r"\1 | null"),
    (r"\bUnion\[(\w+|\w+\[\w+\]), (\w+)(?:, (\w+))?\]", r"\1 | \2 | \3"),
    (r" \| $", ""),
    (r"\bNone(Type)?\b", "null"),
    (r"^bool\b", "true, false"),
)


class Key(NamedTuple):
    """One row: the key with its dots, its value as it is written, the type of the argument, the comment beside it."""

    name: str
    value: str
    type: str
    meaning: str


@cache
def keys(path: Path, prefix: str) -> list[Key]:
    """The keys that a file sets, in its order, each with the prefix of its package."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        return []
    found = _keys(root, "", text.splitlines())
    return [
        key._replace(name=f"{prefix}{key.name}")
        for key in found
        if not re.match(r"defaults$|hydra$|hydra\.(?!sweeper)", key.name)
    ]


def _keys(node: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Key]:
    arguments = _arguments(next((value.value for name, value in node.value if name.value == "_target_"), None))
    for name, value in node.value:
        if name.value.startswith("_") and name.value.endswith("_"):
            continue
        nested = isinstance(value, yaml.MappingNode) and not value.flow_style
        on_one_line = name.end_mark.line == value.end_mark.line
        mark = value.end_mark if on_one_line and not nested else name.end_mark
        meaning = _comment(lines, mark.line, mark.column)
        if not nested:
            yield Key(f"{prefix}{name.value}", _written(value, lines), arguments.get(name.value, ""), meaning)
        else:
            if meaning:
                yield Key(f"{prefix}{name.value}", "", "", meaning)
            yield from _keys(value, f"{prefix}{name.value}.", lines)


def _written(value: yaml.Node, lines: list[str]) -> str:
    in_a_line = value.start_mark.line == value.end_mark.line
    if in_a_line and (isinstance(value, yaml.ScalarNode) or value.flow_style):
        return lines[value.start_mark.line][value.start_mark.column : value.end_mark.column]
    plain = yaml.safe_load(yaml.serialize(value))
    return yaml.safe_dump(plain, default_flow_style=True, width=10_000).strip()


def _comment(lines: list[str], line: int, column: int) -> str:
    """The comment behind a value, with the lines that go on below it."""
    found = re.match(r":?\s*#\s?(.*)", lines[line][column:])
    if not found:
        return ""
    said = [found[1]]
    for following in lines[line + 1 :]:
        more = re.match(r"\s{12,}#\s?(.*)", following)
        if not more:
            break
        said.append(more[1])
    return " ".join(said)


def _arguments(target: str | None) -> dict[str, str]:
    """The types of what a target takes, in words, by name; of one that is not installed, or no class of ours, none."""
    if target is None or target.startswith("hydra_plugins."):
        return {}
    built: Any = get_object(target)
    return {name: _type(found.annotation) for name, found in inspect.signature(built).parameters.items()}


def _type(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty or annotation is Any:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    for written, plain in _PLAIN:
        text = re.sub(written, plain, text)
    return f"`{text}`" if len(text) < 80 else ""  # lists of all words that Lightning knows
