"""The one error type for a user's mistake, the suggestion for a misspelt name, and what goes to the terminal."""

import difflib
import re
import sys
from collections.abc import Iterable

# Control characters, line and paragraph separators, marks of direction, and surrogates.
_STEERING = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that says what was found, expected and to do."""


class TemporaryError(InputError):
    """What could not be read now but may be read later: the system's fault, not the file's."""


def complain(line: str) -> None:
    """One line on stderr, with the program's name in front."""
    print(printable(f"uniad: {line}" if not line.startswith("uniad ") else line), file=sys.stderr, flush=True)


def say(text: str, *, flush: bool = False) -> None:
    """Lines on stdout."""
    print("\n".join(map(printable, text.split("\n"))), flush=flush)


def printable(text: str) -> str:
    r"""`text` for a terminal: what would steer it or turn the text around is escaped, such as `\x1b` and `\u202e`.

    The names of files may hold that, line breaks, and bytes that are no text, which no terminal takes.
    """
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def one_line(error: BaseException) -> str:
    """The text of an error on one line, cut at 200 characters; its kind where it has no text."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'X'?` for the known name nearest to `name`, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
