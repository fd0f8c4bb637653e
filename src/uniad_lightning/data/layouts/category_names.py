"""Names of categories: how they are compared, and which are allowed in the files and tables of results."""

import re
import unicodedata
from collections.abc import Mapping

from uniad_lightning.errors import InputError

ROWS = ("mean", "pooled")  # rows of the results that belong to no category
_FORBIDDEN = re.compile(r'^\.|[/\\:*?"<>|\x00-\x1f]|\s$')


def composed(name: str) -> str:
    """`name` in Unicode's form NFC, in which names are compared; macOS writes ä as a and two dots (NFD)."""
    return unicodedata.normalize("NFC", name)


def check_names(given_at: Mapping[str, str]) -> None:
    """Checks names of categories, which come with the place where each is given.

    Raises InputError for a name that cannot be a file's on every system, that of a row of the results, and one that
    differs from another in case only.
    """
    spellings: dict[str, str] = {}
    for name, where in given_at.items():
        if not name or _FORBIDDEN.search(name):
            raise InputError(
                f"{where}: {name!r} cannot be a category's name, since files are named after it; rename it, "
                'without / \\ : * ? " < > |, a dot in front or a space at the end'
            )
        if name.casefold() in ROWS:
            raise InputError(f"{where}: '{name}' is the name of a row in the results; rename the category")
        other = spellings.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(
                f"{where}: '{name}' and '{other}' ({given_at[other]}) differ in case only, so that the files of one "
                "could replace the other's; rename one"
            )
