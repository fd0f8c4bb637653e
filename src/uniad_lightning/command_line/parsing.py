"""The arguments of one command, parsed into Hydra's options and overrides in any order, and Hydra started on them."""

import os
import re
import sys
import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from uniad_lightning.command_line.quoting import as_text
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.user_path import expand
from uniad_lightning.files.yaml_text import has_aliases, read_yaml
from uniad_lightning.settings import conf_dir


class CommandLine(NamedTuple):
    """The parsed arguments of one command."""

    config_name: str  # of the primary configuration: the command, or --config-name
    folder: str  # of the primary configuration: conf/, or --config-path
    own_folder: str | None  # --config-dir: the user's own YAML files
    overrides: list[str]
    options: list[str]  # of Hydra, one argument each, such as --cfg=job
    kept: list[str] | None = None  # with resume=RUN the overrides of that run's settings, which are not for Hydra


def data_options() -> list[str]:
    """The data sets and layouts that `data=` takes, sorted."""
    return sorted(path.stem for path in (conf_dir() / "data").glob("*.yaml") if path.stem != "from_checkpoint")


def hydra_parser() -> ArgumentParser:
    """Hydra's own parser of its options; Hydra has no public one."""
    from hydra._internal.utils import get_args_parser

    return get_args_parser()


def parse(command: str, arguments: Sequence[str]) -> CommandLine:
    """Separate Hydra's options from the overrides, which Hydra's own call of its parser cannot when they are mixed.

    Raises InputError for an option that does not exist or lacks its value, and for a --config-dir that is no folder or
    hides a file of the package, or multiplies by its aliases.
    """
    parser = hydra_parser()

    def refuse(message: str) -> NoReturn:
        unknown = re.fullmatch(r"unrecognized arguments: (\S+).*", message)
        if unknown:
            known = re.findall(r"--[\w-]+", parser.format_usage())
            message = f"{unknown[1]}: no such option.{did_you_mean(unknown[1], known)}"
        raise InputError(f"{message}{'' if message.endswith('?') else '.'} See uniad {command} --hydra-help")

    parser.error = refuse  # type: ignore[method-assign]
    given = vars(parser.parse_intermixed_args(_with_info_value(arguments)))
    words = given.pop("overrides") or []
    swept = given["multirun"] or any(word.startswith(("sweep=", "+sweep=", "hydra.mode=")) for word in words)
    overrides = [as_text(word, swept=bool(swept)) for word in words]
    config_name, folder = given.pop("config_name"), given.pop("config_path")
    if given["config_dir"] is not None:
        given["config_dir"] = _own_folder(given["config_dir"])
    if folder is not None and "://" not in folder:
        folder = os.path.abspath(expand(folder))  # Hydra would look from this package's folder
    options = []
    for name, value in given.items():
        if value not in (None, False):
            option = f"--{name.replace('_', '-')}"
            options.append(option if value is True else f"{option}={value}")
    return CommandLine(config_name or command, folder or str(conf_dir()), given["config_dir"], overrides, options)


def _own_folder(path: str) -> str:
    """The absolute path of --config-dir; raises InputError for no folder, or a file in it that the package has, too."""
    folder = os.path.abspath(expand(path))
    if not os.path.isdir(folder):
        raise InputError(f"--config-dir {folder}: no such folder; it holds files such as experiment/mine.yaml")
    for file in sorted(Path(folder).rglob("*.yaml")):
        if (conf_dir() / file.relative_to(folder)).is_file():  # Hydra would silently take the package's
            raise InputError(f"{file}: has the name of a file that comes with the package; rename it")
        if has_aliases(file):  # before Hydra writes them out, which may take all memory
            read_yaml(file, str(file))
    return folder


def start(line: CommandLine, task: Callable[[Any], object]) -> None:
    """Run Hydra on `line`: it answers by itself, or calls `task` with each configuration it composes.

    Leaves `sys.argv` as Hydra parsed it. Lets every error of Hydra through.
    """
    import hydra
    from hydra.core.hydra_config import HydraConfig

    import uniad_lightning.training.resolvers  # noqa: F401 - registers what the YAML files compute
    from uniad_lightning.sweeps.search import register

    register()
    warnings.filterwarnings("ignore", message="Callback SweepFolder")  # of an error that then ends the call
    os.environ["HYDRA_FULL_ERROR"] = "1"  # without it Hydra prints the error and exits
    fixed = [key for key in fixed_keys(line.overrides) if not key.startswith("hydra")]
    excluded = f"hydra.job.config.override_dirname.exclude_keys={fixed}"  # for the names of a sweep's folders
    sys.argv = [sys.argv[0], *line.overrides, excluded, *line.options]
    configuration = HydraConfig.instance()
    before = configuration.cfg
    try:
        hydra.main(config_path=line.folder, config_name=line.config_name, version_base="1.3")(task)()
    finally:
        configuration.cfg = before  # --cfg leaves its own, which a later training of this process would read


def fixed_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that have one value among the overrides of a command line."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([word for word in overrides if re.match(r"[^-].*=", word)])
    swept = {override.key_or_group for override in parsed if override.is_sweep_override()}
    return sorted({override.key_or_group for override in parsed} - swept)


def _with_info_value(arguments: Sequence[str]) -> list[str]:
    """`arguments` with --info=all for an --info before an override, which would be taken for its value."""
    return [
        "--info=all" if argument in ("-i", "--info") and re.search("[=~]", following) else argument
        for argument, following in pairwise([*arguments, ""])
    ]
