"""Which names are the same, and which a category may have: results are written under it, in files and tables."""

import re
import unicodedata
from collections.abc import Mapping

from uniad_lightning.errors import InputError

ROWS = ("mean", "pooled")  # what the results call the rows that belong to no category
_FORBIDDEN = re.compile(r'^\.|[/\\:*?"<>|\x00-\x1f]|\s$')


def composed(name: str) -> str:
    """`name` in the one form (NFC) in which names are compared: a Mac writes ä as a and two dots, others as one."""
    return unicodedata.normalize("NFC", name)


def check_names(given_at: Mapping[str, str]) -> None:
    """Raises InputError for a category name under which results cannot be written; `given_at` says where each is given.

    Such is a name that cannot be a file's on every system, that of a row of the results, and one that differs from
    another in case only.
    """
    spelt: dict[str, str] = {}
    for name, where in given_at.items():
        if not name or _FORBIDDEN.search(name):
            raise InputError(
                f"{where}: {name!r} cannot be a product's name, since files are named after it; rename it, "
                'without / \\ : * ? " < > |, a dot in front or a space at the end'
            )
        if name.casefold() in ROWS:
            raise InputError(f"{where}: '{name}' is the name of a row in the results; rename the product")
        other = spelt.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(
                f"{where}: '{name}' and '{other}' ({given_at[other]}) differ in case only, so that the files of one "
                "could replace the other's; rename one"
            )
