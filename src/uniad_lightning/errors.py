"""The one error type for a user's mistake, and the suggestion that goes with a misspelt name."""

import difflib
import sys
from collections.abc import Iterable


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that says what was found, expected and to do."""


class TemporaryError(InputError):
    """What could not be read now but may be read later: the system's fault, not the file's."""


def complain(line: str) -> None:
    """One line on stderr, with the program's name in front."""
    print(f"uniad: {line}" if not line.startswith("uniad ") else line, file=sys.stderr)


def one_line(error: BaseException) -> str:
    """The text of an error on one line, cut at 200 characters; its kind where it has no text."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'X'?` for the known name nearest to `name`, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
