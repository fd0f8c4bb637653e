"""Names as texts of a plot."""

from uniad_lightning.errors import printable


def label(name: str) -> str:
    """`name` with dollar signs and unprintable bytes escaped, so that Matplotlib draws it literally."""
    return printable(name).replace("$", r"\$")
