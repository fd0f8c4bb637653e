"""Completion of `uniad` in a shell by Hydra's completion, which knows one application: the command in the line.

    eval "$(uniad -sc install=bash)"

The shell then calls `uniad -sc query=bash` with the line typed so far in COMP_LINE. Imports nothing heavy.
"""

import io
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from uniad_lightning.command_line.parsing import CommandLine, hydra_parser, parse, start
from uniad_lightning.errors import InputError, one_line

OPTIONS = ("--help", "--version", "--shell-completion")  # of `uniad` itself
FOLDER_OPTIONS = ("--config-dir", "-cd", "--config-path", "-cp")
VALUES = {"--cfg": ("job", "hydra", "all"), "-c": ("job", "hydra", "all")}


def answer(
    arguments: Sequence[str], commands: Collection[str], others: Mapping[str, Callable[[], Iterable[str]]]
) -> None:
    """Print the answer to `uniad -sc ARGUMENTS`: a script to evaluate, or the candidates for a line.

    `commands` are Hydra applications; `others` are further commands, each with the candidates for its arguments.
    Raises InputError for an unknown shell and for arguments that ask for neither.
    """
    if len(arguments) == 1 and arguments[0].startswith("query="):
        shell = arguments[0].removeprefix("query=")
        print(("\n" if shell == "fish" else " ").join(_candidates(shell, commands, others)))
        return
    try:
        start(parse(next(iter(commands)), ["--shell-completion", *arguments]), _no_task)
    except ValueError as error:
        raise InputError(f"-sc: {one_line(error)}; give install=, uninstall= or query= and bash, zsh or fish") from None


def _candidates(shell: str, commands: Collection[str], others: Mapping[str, Callable[[], Iterable[str]]]) -> list[str]:
    """The candidates at the cursor; none where the unfinished line cannot be composed."""
    words, current = _typed()
    candidates: Iterable[str] = []
    if not words:
        candidates = OPTIONS if current.startswith("-") else (*commands, *others)
    elif words[0] in others:
        candidates = others[words[0]]()
    elif words[0] in commands:
        try:
            with redirect_stderr(io.StringIO()):
                candidates = _of_command(shell, words[0], words[1:], current)
        except Exception:  # of a line that is still being typed; a traceback would end up in it
            if os.environ.get("UNIAD_DEBUG") == "1":
                raise
    return sorted(word for word in candidates if word.startswith(current))


def _typed() -> tuple[list[str], str]:
    """The words after the program's name and before the cursor, and the word, perhaps empty, that the cursor is in."""
    line = os.environ.get("COMP_LINE", "")
    point = os.environ.get("COMP_POINT", "")
    line = line[: int(point)] if point.isdigit() else line
    words = line.split()
    current = "" if not words or line[-1].isspace() else words.pop()
    program = 2 if words and Path(words[0]).name.startswith("python") else 1
    return words[program:], current


def _of_command(shell: str, command: str, words: Sequence[str], current: str) -> list[str]:
    """The candidates for `current` among the words of a Hydra application."""
    last = words[-1] if words else ""
    if last in FOLDER_OPTIONS:
        return _files("", current)
    if last in VALUES:
        return list(VALUES[last])
    key, equals, value = current.partition("=")
    if current.startswith("-"):
        return _files(f"{key}=", value) if key in FOLDER_OPTIONS and equals else _options()
    if equals and value.startswith((".", "/")):
        return _files(f"{key}=", value)
    line = parse(command, words)
    candidates = _of_hydra(shell, line, current)
    without_value = candidates in ([], [f"{key}="])  # no option of a group and no value in the configuration
    return _files(f"{key}=", value) if equals and without_value else candidates


def _of_hydra(shell: str, line: CommandLine, current: str) -> list[str]:
    """Hydra's own candidates, found from the overrides and the configuration of one command."""
    multirun = [option for option in line.options if option == "--multirun"]
    own_folder = [f"--config-dir={line.own_folder}"] if line.own_folder else []
    os.environ["COMP_LINE"] = " ".join(["uniad", *multirun, *line.overrides, current])
    query = line._replace(overrides=[f"query={shell}"], options=["--shell-completion", *own_folder])
    printed, argv = io.StringIO(), sys.argv
    try:
        with redirect_stdout(printed):
            start(query, _no_task)
    finally:
        sys.argv = argv
    return printed.getvalue().split()


def _options() -> list[str]:
    return [word.strip("[]") for word in hydra_parser().format_usage().split() if word.startswith("[--")]


def _files(before: str, typed: str) -> list[str]:
    """The files whose path starts with `typed`, as candidates; a folder ends in a slash."""
    from hydra.plugins.completion_plugin import CompletionPlugin

    here = "" if os.path.dirname(typed) else "./"  # Hydra needs a folder in the path
    candidates = []
    for path in CompletionPlugin.complete_files(here + typed):
        if os.path.basename(path).startswith(".") and not os.path.basename(typed).startswith("."):
            continue
        candidates.append(f"{before}{path.removeprefix(here)}{'/' if os.path.isdir(path) else ''}")
    return candidates


def _no_task(_: object) -> None:
    raise RuntimeError("Hydra ran a job when asked to complete a line")
