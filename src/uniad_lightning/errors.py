"""The one error type for a user's mistake, the suggestion for a misspelt name, and what goes to the terminal."""

import difflib
import errno
import re
import sys
from collections.abc import Iterable

# Control characters, line and paragraph separators, marks of direction, and surrogates.
_STEERING = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")

_ELSEWHERE = "choose another path"
# What helps against an error of the system; what is not here is told without advice.
_REMEDIES = {
    "ENOSPC": f"the disk is full: free some space, or {_ELSEWHERE}",
    "EDQUOT": f"the quota is used up: free some space, or {_ELSEWHERE}",
    "EFBIG": f"a limit on the size of files is reached (ulimit -f): raise it, or {_ELSEWHERE}",
    "EROFS": f"the file system can only be read: {_ELSEWHERE}",
    "EACCES": f"mend its permissions, or {_ELSEWHERE}",
    "EPERM": f"mend its permissions, or {_ELSEWHERE}",
    "ENAMETOOLONG": "choose a shorter name",
    "EMFILE": "too many files are open: raise the limit (ulimit -n), or use fewer workers",
    "ENFILE": "the machine has too many files open: end other programs, or use fewer workers",
    "ENOMEM": "the memory is full: end other programs, or use fewer workers",
    "EIO": f"the disk or the network share fails: see to it, or {_ELSEWHERE}",
    "ESTALE": "the network share was mounted anew: try again",
    "ETIMEDOUT": "the network share does not answer: see to it, and try again",
    "EHOSTDOWN": "the network share does not answer: see to it, and try again",
    "ENOTCONN": "the network share is away: see to it, and try again",
    "EISDIR": "expected a file, this is a folder: name another",
    "ENOTDIR": "a part of the path is a file, no folder: name another",
    "ENOENT": "see to the spelling",
    "EEXIST": "choose another name, or move what is there",
    "ENOTEMPTY": "choose another name, or move what is there",
    "EBUSY": "another program uses it: end that, or choose another path",
    "ETXTBSY": "another program uses it: end that, or choose another path",
    "ELOOP": "its links lead in a circle: mend them",
    "EINVAL": "the file system does not take it: choose another name or path",
    "EILSEQ": "the file system does not take such a name: choose another",
}
# Those that can meet a file in the middle of its writing, when Python no longer knows its name.
_WITHOUT_A_NAME = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ENOTCONN")


class InputError(ValueError):
    """What the user gave cannot be used; the message is one line that says what was found, expected and to do."""


class TemporaryError(InputError):
    """What could not be read now but may be later: the fault is the system's (permission, a share), not the file's."""


class LostError(InputError):
    """What was done is gone, by no mistake in the command: it ends with exit status 1."""


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


def told_by(error: InputError) -> str:
    """The line of an error, also where a worker of data loading has put its traceback in front."""
    # The name of a file may hold line breaks, so the line is not simply the last one.
    return re.split(rf"^{InputError.__module__}\.\w+: ", str(error).strip(), flags=re.MULTILINE)[-1]


def one_line(error: BaseException) -> str:
    """The text of an error on one line, cut at 200 characters; its kind where it has no text."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def system_reason(error: OSError) -> str:
    """What the system said, and what helps against it: `No space left on device; the disk is full: free some ...`."""
    said = error.strerror or one_line(error)
    remedy = _REMEDIES.get(_kind(error))
    return f"{said}; {remedy}" if remedy else said


def explain_system(error: OSError) -> str | None:
    """The line for an error of the system; None for one that is no matter of files, disk or memory."""
    if error.filename:
        return f"{error.filename2 or error.filename}: {system_reason(error)}"  # the second is where it was to go
    return system_reason(error) if _kind(error) in _WITHOUT_A_NAME else None


def _kind(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'X'?` for the known name nearest to `name`, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
