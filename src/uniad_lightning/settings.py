"""A configuration as a table of settings."""

from typing import Any


def flat(node: Any, name: str = "") -> dict[str, Any]:
    """The values of nested dicts by dotted name; lists are values."""
    if not isinstance(node, dict):
        return {name: node}
    return {k: v for child, value in node.items() for k, v in flat(value, f"{name}.{child}".lstrip(".")).items()}
