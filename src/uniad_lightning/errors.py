"""The error type for a user's mistake, the suggestion for a misspelt name, and printing to the terminal."""

import difflib
import errno
import re
import sys
from collections.abc import Iterable

# Control characters, line and paragraph separators, directional marks, and surrogates.
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")

# User and password of an address: all up to its last @, as passwords hold any character.
_USER = re.compile(r"""(?<=://)(?:[^\s/'"@]*:[^\s'"]*|[^\s/'"]*)@""")

_ELSEWHERE = "choose another path"
# The remedy for a system error; others are reported without one.
_REMEDIES = {
    "ENOSPC": f"the disk is full: free some space, or {_ELSEWHERE}",
    "EDQUOT": f"the quota is used up: free some space, or {_ELSEWHERE}",
    "EFBIG": f"a limit on the size of files is reached (ulimit -f): raise it, or {_ELSEWHERE}",
    "EROFS": f"the file system can only be read: {_ELSEWHERE}",
    "EACCES": f"fix its permissions, or {_ELSEWHERE}",
    "EPERM": f"fix its permissions, or {_ELSEWHERE}",
    "ENAMETOOLONG": "choose a shorter name",
    "EMFILE": "too many files are open: raise the limit (ulimit -n), or use fewer workers",
    "ENFILE": "the machine has too many files open: stop other programs, or use fewer workers",
    "ENOMEM": "the memory is full: stop other programs, or use fewer workers",
    "EIO": f"the disk or the network share fails: check it, or {_ELSEWHERE}",
    "ESTALE": "the network share was mounted again: try again",
    "ETIMEDOUT": "the network share does not answer: check it, and try again",
    "EHOSTDOWN": "the network share does not answer: check it, and try again",
    "ENOTCONN": "the network share is not connected: check it, and try again",
    "EISDIR": "this is a folder, not a file: give another path",
    "ENOTDIR": "a part of the path is a file, not a folder: give another path",
    "ENOENT": "check the spelling",
    "EEXIST": "choose another name, or move the existing one",
    "ENOTEMPTY": "choose another name, or move the existing one",
    "EBUSY": "another program uses it: stop that program, or choose another path",
    "ETXTBSY": "another program uses it: stop that program, or choose another path",
    "ELOOP": "its links form a circle: fix them",
    "EINVAL": "the file system does not accept it: choose another name or path",
    "EILSEQ": "the file system does not accept this name: choose another",
}
# Those that can occur while a file is being written, when Python no longer knows its name.
_WITHOUT_A_NAME = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE", "ENOTCONN")


class InputError(ValueError):
    """The user's input cannot be used; the message is one line: what was found, what was expected, what to do."""


class TemporaryError(InputError):
    """A file cannot be read now but may be later: the system is at fault (permission, a share), not the file."""


class LostError(InputError):
    """Results were lost through no mistake in the command, which ends with exit status 1."""


def print_stderr(line: str) -> None:
    """Print one line on stderr, with the program's name in front."""
    print(printable(f"uniad: {line}" if not line.startswith("uniad ") else line), file=sys.stderr, flush=True)


def print_stdout(text: str, *, flush: bool = False) -> None:
    """Print lines on stdout."""
    print("\n".join(map(printable, text.split("\n"))), flush=flush)


def printable(text: str) -> str:
    r"""`text` for a terminal: characters that control it or change the direction of text are escaped, as `\x1b`.

    File names may hold those, line breaks, and bytes that are not valid text. User and password in an address are left
    out: `rtsp://***@10.0.0.7/`.
    """
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), without_user(text))


def without_user(text: str) -> str:
    """`text` without user and password in the addresses that it holds."""
    return _USER.sub("***@", text)


def message_of(error: InputError) -> str:
    """The message of an error, without the traceback that a data loading worker puts in front of it."""
    # A file name may hold line breaks, so the message is not simply the last line.
    return re.split(rf"^{InputError.__module__}\.\w+: ", str(error).strip(), flags=re.MULTILINE)[-1]


def one_line(error: BaseException) -> str:
    """The text of an error on one line, cut at 200 characters; its type where it has no text."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def system_reason(error: OSError) -> str:
    """The system's message and the remedy: `No space left on device; the disk is full: free some space, or ...`."""
    message = error.strerror or one_line(error)
    remedy = _REMEDIES.get(_kind(error))
    return f"{message}; {remedy}" if remedy else message


def explain_system(error: OSError) -> str | None:
    """The message for a system error; None for one that does not concern files, disk or memory."""
    if error.filename:
        return f"{error.filename2 or error.filename}: {system_reason(error)}"  # the second is the destination
    return system_reason(error) if _kind(error) in _WITHOUT_A_NAME else None


def _kind(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'X'?` for the known name nearest to `name`, or an empty string when none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean '{near[0]}'?" if near else ""
