"""`uniad COMMAND [key=value ...]`: each command is a Hydra application on `conf/`.

Exit status: 0 done; 1 finished, but a job failed (named); 2 a user's mistake, in one line; 130 interrupted.
Heavy imports happen inside a command, so that `uniad --help` answers at once.
"""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.errors import InputError, did_you_mean, one_line

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


class Command(NamedTuple):
    """One subcommand: what it does, and a line that shows it."""

    meaning: str
    example: str


COMMANDS = {
    "train": Command(
        "train one model on all categories, then evaluate it", "uniad train experiment=mvtec data.root=mvtec_ad"
    ),
    "evaluate": Command(
        "evaluate a checkpoint", "uniad evaluate ckpt_path=runs/mvtec/checkpoints/last.ckpt data.root=mvtec_ad"
    ),
}


def usage() -> str:
    """The text of `uniad --help`."""
    lines = ["usage: uniad COMMAND [key=value ...]", ""]
    for name, command in COMMANDS.items():
        lines += [f"  {name:10} {command.meaning}", f"  {'':10} {command.example}", ""]
    lines += [
        "Keys are those of conf/; `uniad COMMAND --cfg job` prints them with their values,",
        "`uniad COMMAND --help` the options of each group. Several runs: -m model.neighbor_size=1,7",
        "or sweep=neighbor_size. UNIAD_DEBUG=1 shows the traceback behind an error line.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Entry point of the console script `uniad`."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        sys.exit(DONE)
    if arguments[0] not in COMMANDS:
        _complain(f"uniad {arguments[0]}: no such command.{did_you_mean(arguments[0], COMMANDS)} See uniad --help")
        sys.exit(MISTAKE)
    sys.exit(run_command(arguments[0], arguments[1:]))


def conf_dir() -> Path:
    """The folder of the YAML files: inside an installed package, at the top of a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def run_command(name: str, overrides: list[str]) -> int:
    """Run the Hydra application `name`, once or over a sweep; returns the exit status."""
    import hydra
    from omegaconf import OmegaConf

    jobs = _Jobs(name)
    OmegaConf.register_new_resolver("swept", lambda task: swept_name(task, overrides), replace=True)
    own_argv = sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us whole; the line they become is made here
    # Hydra's parser takes options before the overrides or after, not among them.
    options = [word for word in overrides if word in ("-m", "--multirun")]
    overrides = options + [word for word in overrides if word not in options]
    sys.argv = [own_argv[0], *overrides]  # what Hydra parses; each job restores it for Lightning to launch ranks with
    jobs.argv = own_argv
    try:
        hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(jobs.run)()
    except KeyboardInterrupt:
        jobs.finish()
        _complain("interrupted; a run with a checkpoint can be resumed from it with ckpt_path=...")
        return INTERRUPTED
    except Exception as error:
        return _report(error, name)
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

    def __init__(self, name: str):
        self.name = name
        self.argv: list[str] = []
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
            if hydra_cfg.mode == RunMode.MULTIRUN:
                self.sweep = Path(hydra_cfg.sweep.dir)
                _refuse_processes(cfg)
            self.statuses.append(self._call(cfg))
        except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
            self.statuses.append(INTERRUPTED)
            raise KeyboardInterrupt from None
        except Exception as error:
            self.statuses.append(_report(error, self.name))

    def _call(self, cfg: Any) -> int:
        from uniad_lightning import run

        _quieten()  # after the import, since Lightning sets its own level when it is imported

        command: Callable[[Any], object] = getattr(run, self.name)
        command(cfg)
        return DONE

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
    if cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1:
        raise InputError(
            f"trainer.devices={cfg.trainer.devices} in a sweep: each process would start the sweep again; use "
            "trainer.devices=1 per run, or start the runs one by one"
        )


def _report(error: Exception, name: str) -> int:
    """One line on stderr for a user's mistake, a traceback for a fault of ours; returns the exit status."""
    if os.environ.get("UNIAD_DEBUG") == "1":
        traceback.print_exception(error)
    line = _explain(error, name)
    if line is None:
        if os.environ.get("UNIAD_DEBUG") != "1":
            traceback.print_exception(error)
        return FAILED
    _complain(line)
    return MISTAKE


def _explain(error: Exception, name: str) -> str | None:
    """What the user did wrong, in one line; None when the fault is not the user's."""
    from hydra.errors import HydraException, InstantiationException
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from omegaconf.errors import OmegaConfBaseException

    cause: BaseException = error
    while not isinstance(cause, InputError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, InputError):
        # A data-loading worker hands its error over with a traceback in front.
        return str(cause).strip().splitlines()[-1].removeprefix("uniad_lightning.errors.InputError: ")
    if isinstance(error, InstantiationException):
        key = re.search(r"full_key: ([\w.]+)", str(error))
        return f"{key[1] if key else 'configuration'}: {one_line(cause)}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_config(error, name)
    if isinstance(error, MisconfigurationException):
        return one_line(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; choose another path or mend its permissions"
    return None


def _explain_config(error: Exception, name: str) -> str:
    """Hydra's own complaint about the configuration, shortened, with the nearest key or option."""
    message = str(error)
    unparsed = getattr(error, "override", None)
    if isinstance(unparsed, str):
        return f"{unparsed}: cannot be read as key=value; quote special characters, as in 'key=\"value\"'"
    unknown = re.search(r"Could not override '([^']+)'", message)
    if unknown:
        return (
            f"{unknown[1]}: no such key or group.{did_you_mean(unknown[1], _known_keys(name))} See uniad {name} --help"
        )
    option = re.search(r"Could not find '(\w+)/([^']+)'", message)
    if option:
        options = [path.stem for path in (conf_dir() / option[1]).glob("*.yaml")]
        return (
            f"{option[1]}={option[2]}: no such option.{did_you_mean(option[2], options)} "
            f"Options: {', '.join(sorted(options))}"
        )
    missing = getattr(error, "full_key", None)
    if missing and "issing mandatory value" in message:
        return f"{missing}: needs a value; give {missing}=..."
    return one_line(error)


def _known_keys(name: str) -> list[str]:
    """Every key and group of the configuration `name`, dotted."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import DictConfig

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(name)

    def keys(node: DictConfig, prefix: str) -> list[str]:
        found = []
        for key in map(str, node):
            found.append(f"{prefix}{key}")
            child = node._get_node(key)
            if isinstance(child, DictConfig):
                found += keys(child, f"{prefix}{key}.")
        return found

    return keys(cfg, "") + [path.name for path in conf_dir().iterdir() if path.is_dir()]


def _complain(line: str) -> None:
    print(f"uniad: {line}" if not line.startswith("uniad ") else line, file=sys.stderr)


if __name__ == "__main__":
    main()
