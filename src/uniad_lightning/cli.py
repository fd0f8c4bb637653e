"""`uniad COMMAND [key=value ...]`: each command is a Hydra application on `conf/`.

Exit status: 0 done; 1 finished, but a job or a picture failed (named) or a copy of a data set is not whole; 2 a user's
mistake, in one line; 130 interrupted.
Heavy imports happen inside a command, so that `uniad --help` answers at once.
"""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from uniad_lightning import __version__, completion
from uniad_lightning.command_line import CommandLine, conf_dir, data_options, parse, start
from uniad_lightning.commands import CACHE, COMMANDS, DATA, usage
from uniad_lightning.errors import InputError, did_you_mean, one_line
from uniad_lightning.explain import explain

__all__ = ["COMMANDS", "conf_dir", "main", "run_command"]

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


def main() -> None:
    """Entry point of the console script `uniad`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        sys.exit(DONE)
    if "--version" in arguments:
        print(f"uniad-lightning {__version__}")
        sys.exit(DONE)
    if arguments[0] in ("-sc", "--shell-completion"):
        sys.exit(_complete(arguments[1:]))
    if arguments[0] == DATA:
        sys.exit(_show_data_sets(arguments[1:]))
    if arguments[0] == CACHE and (len(arguments) == 1 or arguments[1].startswith("keep=")):
        sys.exit(_show_kept_features(arguments[1:]))
    if arguments[0].replace("-", "_") in COMMANDS:
        arguments[0] = arguments[0].replace("-", "_")
    if arguments[0] not in COMMANDS:
        near = did_you_mean(arguments[0], (*COMMANDS, DATA))
        if arguments[0].startswith("-"):
            near = f" Options come after it: uniad COMMAND {arguments[0]} ..."
        _complain(f"uniad {arguments[0]}: no such command.{near} See uniad --help")
        sys.exit(MISTAKE)
    sys.exit(run_command(arguments[0], arguments[1:]))


def _show_data_sets(words: list[str]) -> int:
    from uniad_lightning.data_sets import show_data_sets

    try:
        return DONE if show_data_sets(words) else FAILED
    except InputError as error:
        _complain(str(error))
        return MISTAKE


def _show_kept_features(words: list[str]) -> int:
    from uniad_lightning.kept_features import show_kept_features

    try:
        show_kept_features(words)
    except InputError as error:
        _complain(str(error))
        return MISTAKE
    return DONE


def _complete(words: Sequence[str]) -> int:
    try:
        completion.answer(words, COMMANDS, others={DATA: data_options})
    except InputError as error:
        _complain(str(error))
        return MISTAKE
    return DONE


def run_command(name: str, words: Sequence[str]) -> int:
    """Run the Hydra application `name`, once or over a sweep; returns the exit status.

    `words` are overrides and Hydra's options in any order.
    """
    own_argv = sys.argv
    try:
        line = parse(name, words)
    except InputError as error:
        _complain(str(error))
        return MISTAKE
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("swept", lambda task: swept_name(task, line.overrides), replace=True)
    jobs = _Jobs(name, line)
    try:
        start(line, jobs.run)
    except KeyboardInterrupt:
        jobs.finish()
        how = "resume=true goes on" if name == "predict" else "a run with a checkpoint is resumed by ckpt_path=..."
        _complain(f"interrupted; {how}")
        return INTERRUPTED
    except Exception as error:
        # A plain ValueError is Hydra's, about options that contradict each other: a job's own does not come this far.
        return _report(InputError(one_line(error)) if type(error) is ValueError else error, name, line)
    finally:
        sys.argv = own_argv
    return jobs.finish()


def swept_name(task: Sequence[str], given: Sequence[str]) -> str:
    """A folder name for one job of a sweep from what the sweep varies, such as `model.neighbor_size-7`.

    `task` are all overrides of the job, `given` those of the command line: what has one value there does not vary.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([word for word in given if re.match(r"[^-].*=", word)])
    single = {override.key_or_group for override in parsed if not override.is_sweep_override()}
    single -= {override.key_or_group for override in parsed if override.is_sweep_override()}
    varied = [override for override in task if override.split("=")[0].lstrip("+~") not in single]
    name = "_".join(re.sub(r"[^\w.+-]+", "-", override).strip("-") for override in varied) or "run"
    if len(name) <= 120:
        return name
    return f"{name[:100]}-{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"


class _Jobs:
    """The jobs of one call: runs each, remembers its folder and its failure, and ends a sweep in a table."""

    def __init__(self, name: str, line: CommandLine):
        self.name = name
        self.line = line
        self.argv = sys.argv  # with which Lightning launches ranks; Hydra's parser needs another
        self.folders: list[Path] = []
        self.statuses: list[int] = []
        self.sweep: Path | None = None

    def run(self, cfg: Any) -> None:
        """One job; never raises but for an interrupt, since that would end the sweep."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        hydra_cfg = HydraConfig.get()
        sys.argv = self.argv
        cfg.output_dir = hydra_cfg.runtime.output_dir
        self.folders.append(Path(cfg.output_dir))
        try:
            _refuse_without_package(cfg, hydra_cfg.runtime.choices)
            if hydra_cfg.mode == RunMode.MULTIRUN:
                self.sweep = Path(hydra_cfg.sweep.dir)
                _refuse_processes(cfg)
            self.statuses.append(self._call(cfg))
        except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
            self.statuses.append(INTERRUPTED)
            raise KeyboardInterrupt from None
        except Exception as error:
            self.statuses.append(_report(error, self.name, self.line))

    def _call(self, cfg: Any) -> int:
        module = import_module(f"uniad_lightning.{COMMANDS[self.name].module}")
        _quieten()  # after the import, since Lightning sets its own level when it is imported
        command: Callable[[Any], object] = getattr(module, self.name)
        return FAILED if getattr(command(cfg), "failed", 0) else DONE

    def finish(self) -> int:
        """The exit status of the whole call, after a sweep's table."""
        if self.sweep is None:
            return self.statuses[0] if self.statuses else DONE  # none: Hydra itself answered, such as --cfg
        from uniad_lightning.results.tables import show_sweep

        show_sweep(self.sweep, self.folders)
        failed = [folder.name for folder, status in zip(self.folders, self.statuses, strict=True) if status != DONE]
        if failed:
            _complain(f"{len(failed)} of {len(self.folders)} runs failed: {', '.join(failed)}")
        return FAILED if failed else DONE


def _quieten() -> None:
    """Silence what Lightning says about things that are as they should be here."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",  # data.num_workers is in the config for all to see
        ".*in eval mode at the start of training",  # the frozen backbone
        ".*LeafSpec.* is deprecated",  # between Lightning and torch
        ".*exists and is not empty",  # a resumed run
        ".*smaller than the logging interval",  # small data sets
    ):
        warnings.filterwarnings("ignore", message=message)


def _refuse_processes(cfg: Any) -> None:
    if "trainer" in cfg and (cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1):
        raise InputError(
            f"trainer.devices={cfg.trainer.devices} in a sweep: each process would start the sweep again; use "
            "trainer.devices=1 per run, or start the runs one by one"
        )


def _refuse_without_package(cfg: Any, choices: Mapping[str, str]) -> None:
    """Refuse an experiment or sweep that Hydra has put under its group's name, where it changes nothing."""
    for group in ("experiment", "sweep"):
        if group in cfg:
            raise InputError(
                f"{group}={choices[group]}: nothing in its file takes effect; let it begin with '# @package _global_'"
            )


def _report(error: Exception, name: str, line: CommandLine) -> int:
    """One line on stderr for a user's mistake, a traceback for a fault of ours; returns the exit status."""
    if os.environ.get("UNIAD_DEBUG") == "1":
        traceback.print_exception(error)
    explanation = explain(error, name, line)
    if explanation is None:
        if os.environ.get("UNIAD_DEBUG") != "1":
            traceback.print_exception(error)
        return FAILED
    _complain(explanation)
    return MISTAKE


def _complain(line: str) -> None:
    print(f"uniad: {line}" if not line.startswith("uniad ") else line, file=sys.stderr)


if __name__ == "__main__":
    main()
