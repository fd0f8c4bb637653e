"""Names as texts of a plot."""

from uniad_lightning.errors import printable


def label(name: str) -> str:
    """`name` as Matplotlib shows it as it stands: no formulas between dollar signs, no bytes that are no text."""
    return printable(name).replace("$", r"\$")
