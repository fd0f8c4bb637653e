"""The words of one command told apart: Hydra's options and the overrides, in whatever order they were typed."""

import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from uniad_lightning.command_line.quoting import as_text
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.user_path import expand
from uniad_lightning.settings import conf_dir


class CommandLine(NamedTuple):
    """What the words of one command say."""

    config_name: str  # of the primary configuration: the command, or --config-name
    folder: str  # where that lies: conf/, or --config-path
    own_folder: str | None  # --config-dir: the user's own YAML files
    overrides: list[str]
    options: list[str]  # of Hydra, one word each, such as --cfg=job


def data_options() -> list[str]:
    """The data sets and layouts that `data=` knows, sorted."""
    return sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml") if path.stem != "from_checkpoint")


def parse(command: str, words: Sequence[str]) -> CommandLine:
    """Tell the options among `words` from the overrides, which Hydra's own parser cannot when they are mixed.

    Raises InputError for an option that does not exist or lacks its value, and for a --config-dir that is no folder.
    """
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: (\S+).*", message)
        if unknown:
            known = re.findall(r"--[\w-]+", parser.format_usage())
            message = f"{unknown[1]}: no such option.{did_you_mean(unknown[1], known)}"
        raise InputError(f"{message}{'' if message.endswith('?') else '.'} See uniad {command} --hydra-help")

    parser.error = refuse  # type: ignore[method-assign]
    given = vars(parser.parse_intermixed_args(_bare_info_spelt_out(words)))
    overrides = [as_text(word) for word in given.pop("overrides") or []]
    config_name, folder = given.pop("config_name"), given.pop("config_path")
    own_folder = given["config_dir"]
    if own_folder is not None:
        own_folder = given["config_dir"] = os.path.abspath(expand(own_folder))
        if not os.path.isdir(own_folder):
            raise InputError(f"--config-dir {own_folder}: no such folder; it holds files such as experiment/mine.yaml")
        for path in sorted(Path(own_folder).rglob("*.yaml")):
            if (conf_dir() / path.relative_to(own_folder)).is_file():  # Hydra would take ours without a word
                raise InputError(f"{path}: has the name of a file that comes with the package; rename it")
    if folder is not None and "://" not in folder:
        folder = os.path.abspath(expand(folder))  # Hydra would look from this package's folder
    options = []
    for name, value in given.items():
        if value not in (None, False):
            option = f"--{name.replace('_', '-')}"
            options.append(option if value is True else f"{option}={value}")
    return CommandLine(config_name or command, folder or str(conf_dir()), own_folder, overrides, options)


def start(line: CommandLine, task: Callable[[Any], object]) -> None:
    """Let Hydra do what `line` says: answer by itself, or call `task` with each configuration it composes.

    Leaves `sys.argv` as Hydra parsed it. Raises what Hydra raises, whole.
    """
    import hydra

    from uniad_lightning.sweeps.search import register

    register()
    warnings.filterwarnings("ignore", message="Callback SweepFolder")  # of an error that then ends the call
    os.environ["HYDRA_FULL_ERROR"] = "1"  # without it Hydra prints the error and exits
    fixed = [key for key in fixed_keys(line.overrides) if not key.startswith("hydra")]
    told = f"hydra.job.config.override_dirname.exclude_keys={fixed}"  # for the names of a sweep's folders
    sys.argv = [sys.argv[0], *line.overrides, told, *line.options]
    hydra.main(config_path=line.folder, config_name=line.config_name, version_base="1.3")(task)()


def fixed_keys(given: Sequence[str]) -> list[str]:
    """The keys that have one value among the overrides of a command line."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([word for word in given if re.match(r"[^-].*=", word)])
    swept = {override.key_or_group for override in parsed if override.is_sweep_override()}
    return sorted({override.key_or_group for override in parsed} - swept)


def _bare_info_spelt_out(words: Sequence[str]) -> list[str]:
    """`words` with --info=all for an --info before an override, which would be taken for its value."""
    return [
        "--info=all" if word in ("-i", "--info") and re.search("[=~]", following) else word
        for word, following in pairwise([*words, ""])
    ]
