"""A leading `~` in a path of the user, expanded as by the shell."""

import os
from pathlib import Path

from uniad_lightning.errors import InputError


def expand(path: str | os.PathLike[str], *, within: Path = Path()) -> Path:
    """`path` with `~` or `~user` at its beginning replaced by the home folder.

    A file of that name in the folder `within`, such as `~draft.png`, is left as it is.

    Raises InputError where the user has no home folder or does not exist.
    """
    text = str(path)
    user = text.partition("/")[0].partition(os.sep)[0]
    if not user.startswith("~"):
        return Path(text)
    try:
        home = os.path.expanduser(user)
    except ValueError:  # a zero byte
        home = user
    if not home.startswith("~"):
        return Path(home + text[len(user) :])
    if os.path.lexists(within / user):
        return Path(text)
    if user == "~":
        raise InputError(f"{text}: this user has no home folder; set HOME, or give the whole path")
    raise InputError(
        f"{text}: no user is called '{user[1:]}'; give the whole path, or ./{text} for a file of that name"
    )
