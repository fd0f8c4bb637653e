"""A user's mistake in one line, from an error of this package, Hydra, Lightning or the system."""

import os
import re
import shlex
import traceback
from pathlib import Path
from typing import Any

from uniad_lightning.command_line.parsing import CommandLine
from uniad_lightning.command_line.quoting import in_quotes
from uniad_lightning.errors import (
    InputError,
    LostError,
    did_you_mean,
    explain_system,
    message_of,
    one_line,
    print_stderr,
)
from uniad_lightning.exit_status import FAILED, MISTAKE
from uniad_lightning.files.yaml_text import read_yaml
from uniad_lightning.settings import conf_dir


def report(error: Exception, name: str, line: CommandLine) -> tuple[int, str]:
    """Print a user's mistake as one line, any other error as a traceback; returns the exit status and the reason."""
    if os.environ.get("UNIAD_DEBUG") == "1":
        traceback.print_exception(error)
    explanation = explain(error, name, line)
    if explanation is None:
        if os.environ.get("UNIAD_DEBUG") != "1":
            traceback.print_exception(error)
        return FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
    print_stderr(explanation)
    return (FAILED if isinstance(error, LostError) else MISTAKE), explanation


def explain(error: Exception, command: str, line: CommandLine) -> str | None:
    """What the user has to correct in `line`, as one line; None when the fault is not the user's."""
    from hydra.errors import HydraException, InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import MarkedYAMLError, YAMLError

    cause: BaseException = error
    while not isinstance(cause, InputError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, InputError):
        return message_of(cause)
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: ([\w.]+)", str(error))
        message = explain_system(cause) if isinstance(cause, OSError) else None
        return f"{key[1] if key else 'configuration'}: {message or one_line(cause)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_config(error, command, line)
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"{mark.name}, line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    if isinstance(error, UnicodeDecodeError | RecursionError | YAMLError):  # of a file; Hydra does not say which
        return _explain_files(error, line)
    if isinstance(error, MisconfigurationException):
        return one_line(error)
    return explain_system(error) if isinstance(error, OSError) else None


def _explain_files(error: Exception, line: CommandLine) -> str | None:
    """What is wrong with the user's own YAML files; None where nothing is."""
    folders = [folder for folder in (line.own_folder, line.folder) if folder and Path(folder) != conf_dir()]
    for path in (path for folder in folders for path in sorted(Path(folder).rglob("*.yaml"))):
        try:
            read_yaml(path, str(path))
        except InputError as mistake:
            return str(mistake)
    if not folders or not isinstance(error, RecursionError):
        return None
    return f"{folders[0]}: its files include each other in a circle; correct their `defaults`"


def _explain_config(error: Exception, command: str, line: CommandLine) -> str:
    """Hydra's error about the configuration, shortened, with the nearest key or option."""
    message = str(error)
    own = re.search(r"InputError raised while resolving interpolation: (.*)", message)
    if own:
        return own[1]
    unparsed = getattr(error, "override", None)
    if isinstance(unparsed, str):
        key, equals, value = unparsed.partition("=")
        quoted = shlex.quote(f"{key}={in_quotes(value)}") if equals else "'key=\"value\"'"
        return f"{unparsed}: cannot be read as key=value; quote special characters: {quoted}"
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown:
        near = did_you_mean(unknown[1], [key for key in _known_keys(line) if key != unknown[1]])
        return f"{unknown[1]}: no such key or group.{near} See uniad {command} --help"
    option = re.search(r"Could not (?:find|load) '([\w/]+)/([^']+)'", message)
    if option:
        options = getattr(error, "options", None) or _options(option[1], line)  # of a list of options Hydra gives none
        install = ""
        if option[1] == "hydra/launcher":
            install = "; joblib's and submitit's come with uniad-lightning[sweep], Ray's with hydra-ray-launcher"
        return (
            f"{option[1]}={option[2]}: no such option.{did_you_mean(option[2], options)} "
            f"Options: {', '.join(sorted(options))}{install}"
        )
    missing = getattr(error, "full_key", None)
    if missing and "issing mandatory value" in message:
        return f"{missing}: needs a value; give {missing}=..."
    return one_line(error if message else error.__cause__ or error)


def _options(group: str, line: CommandLine) -> list[str]:
    """The options of a group, of the package and the user's own."""
    folders = [line.folder, *([line.own_folder] if line.own_folder else [])]
    return [path.stem for folder in folders for path in (Path(folder) / group).glob("*.yaml")]


def _known_keys(line: CommandLine) -> list[str]:
    """Every group, and every key of the configuration without its overrides, dotted."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    folders = [line.folder, *([line.own_folder] if line.own_folder else [])]
    groups = [
        path.name for folder in map(Path, folders) if folder.is_dir() for path in folder.iterdir() if path.is_dir()
    ]
    if not Path(line.folder).is_dir():
        return groups  # --config-path pkg://...
    GlobalHydra.instance().clear()
    with initialize_config_dir(line.folder, version_base="1.3"):
        searched = [f"hydra.searchpath=['file://{line.own_folder}']"] if line.own_folder else []
        chosen = [word for word in line.overrides if word.partition("=")[0] in groups]  # model=cnn has keys of its own
        try:
            cfg = compose(line.config_name, [*searched, *chosen])
        except HydraException:  # what is chosen is not there either
            cfg = compose(line.config_name, searched)
    return [*_keys(OmegaConf.to_container(cfg, resolve=False)), *groups]


def _keys(node: Any, prefix: str = "") -> list[str]:
    """Every key of nested dicts, dotted."""
    if not isinstance(node, dict):
        return []
    return [key for name, child in node.items() for key in (f"{prefix}{name}", *_keys(child, f"{prefix}{name}."))]
