"""Where the package's YAML files are, and a nested configuration as one flat dict."""

from pathlib import Path
from typing import Any


def conf_dir() -> Path:
    """The folder of the YAML files: inside an installed package, at the top of a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def flat(node: Any, name: str = "") -> dict[str, Any]:
    """The values of nested dicts by dotted name; lists are values."""
    if not isinstance(node, dict):
        return {name: node}
    return {k: v for child, value in node.items() for k, v in flat(value, f"{name}.{child}".lstrip(".")).items()}
