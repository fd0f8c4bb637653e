"""The jobs of one call, one or the many of a sweep: each has a folder, is not done twice, and reports its end.

Hydra's launchers run the jobs of a sweep here, in other processes or on other machines; a job hands over its result as
`job.json` in its folder. Heavy modules are imported inside functions, since Hydra imports this module.
"""

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf

from uniad_lightning.command_line.commands import COMMANDS
from uniad_lightning.command_line.error_messages import report
from uniad_lightning.command_line.job_folders import checkpoint_file, free_folder, varied
from uniad_lightning.command_line.parsing import CommandLine
from uniad_lightning.command_line.resuming import goes_on, is_finished, settled
from uniad_lightning.errors import InputError, print_stderr, print_stdout, system_reason
from uniad_lightning.exit_status import DONE, FAILED, INTERRUPTED, MISTAKE
from uniad_lightning.files.atomic import remove_left
from uniad_lightning.files.user_path import expand
from uniad_lightning.results.history import current, running
from uniad_lightning.training.interrupts import end_if_interrupted, keep_interrupts

RECORD, LOG = "job.json", "log.txt"


class SweepFolder(Callback):
    """Keeps the folder of this process's sweep, which Hydra gives to callbacks alone."""

    path: Path | None = None

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Called by Hydra before the first job."""
        SweepFolder.path = Path(config.hydra.sweep.dir)


class Jobs:
    """The jobs of one call of the command `name` with the arguments `line`.

    Hydra calls `run` for each, in this process or, through a pickle, in another.
    """

    def __init__(self, name: str, line: CommandLine):
        self.name = name
        self.line = line
        self.argv = sys.argv  # with which Lightning launches ranks; Hydra's parser needs another
        self.process = os.getpid()
        self.call = uuid.uuid4().hex
        self.command = current()
        self.status: int | None = None
        self.folder: Path | None = None  # of the one job where there is no sweep
        SweepFolder.path = None

    def run(self, cfg: Any) -> dict[str, float] | None:
        """Run one job; in a sweep returns its metrics by `<row>/<metric>`. Raises nothing but KeyboardInterrupt."""
        hydra_cfg = HydraConfig.get()
        sys.argv = self.argv
        cfg.output_dir = hydra_cfg.runtime.output_dir
        swept = hydra_cfg.mode == RunMode.MULTIRUN
        if not swept:
            self.status, _ = self._attempt(cfg, hydra_cfg, swept=False)
            return None
        folder = Path(cfg.output_dir)
        values = varied(hydra_cfg.overrides.task, hydra_cfg.job.config.override_dirname.exclude_keys)
        started, record = time.monotonic(), {"call": self.call, "number": hydra_cfg.job.num, "varied": values}
        self._write(folder, {**record, "status": None, "reason": "its process ended without a message"})
        with running(self.command), _own_log(folder / LOG, here=os.getpid() == self.process):
            status, reason = self._attempt(cfg, hydra_cfg, swept=True)
        seconds = round(time.monotonic() - started, 1)
        self._write(folder, {**record, "status": status, "reason": reason, "seconds": seconds})
        if os.getpid() != self.process:
            outcome = "done" if status == DONE else f"failed: {reason}"
            print_stderr(f"{folder.name}: {outcome} ({seconds:.0f} s; {folder / LOG})")
        return _metrics(folder) if status == DONE else None

    @keep_interrupts()  # here too, as a job may have a process of its own
    def _attempt(self, cfg: Any, hydra_cfg: Any, *, swept: bool) -> tuple[int, str]:
        """Run a job; returns its exit status and, where it failed, the reason."""
        try:
            cfg = settled(cfg, self.line)
            _refuse_without_package(cfg, hydra_cfg.runtime.choices)
            if OmegaConf.select(cfg, "ckpt_path") is not None:
                cfg.ckpt_path = checkpoint_file(expand(cfg.ckpt_path), self.name)
            if swept:
                _refuse_processes(cfg, self.name)
            if self.name == "train" and goes_on(cfg, hydra_cfg.overrides.task, swept=swept) and is_finished(cfg):
                import_module("uniad_lightning.calibration.after_training").set_missing_boundary(cfg)
                print_stdout(f"{cfg.output_dir}: finished before with the same settings, left as it is")
                return DONE, ""
            if not swept:
                with free_folder(cfg, hydra_cfg):
                    self.folder = Path(cfg.output_dir)
                    return self._call(cfg), ""
            with _device(cfg):
                return self._call(cfg), ""
        except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
            self.status = INTERRUPTED
            raise KeyboardInterrupt from None
        except Exception as error:  # a job that fails must not end the sweep; `report` explains it
            end_if_interrupted()  # some libraries turn an interrupt into another error
            return report(error, self.name, self.line)

    def _call(self, cfg: Any) -> int:
        module = import_module(f"uniad_lightning.{COMMANDS[self.name].module}")
        _quieten()  # after the import, since Lightning sets its own level when it is imported
        command: Callable[[Any], object] = getattr(module, self.name)
        return FAILED if getattr(command(cfg), "incomplete", False) else DONE

    def _write(self, folder: Path, record: dict[str, Any]) -> None:
        from uniad_lightning.results.run_folder import write_text

        remove_left([folder / RECORD])
        try:
            write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
        except OSError as error:  # a full disk, which need not end the other jobs
            print_stderr(f"{folder / RECORD}: cannot be written; {system_reason(error)}")
            self.status = FAILED

    def finish(self) -> int:
        """Print a sweep's table; returns the exit status of the whole call."""
        if SweepFolder.path is None:
            return DONE if self.status is None else self.status  # None: Hydra itself answered, such as --cfg
        from uniad_lightning.sweeps.table import Job, show_sweep

        saved = [(path.parent, json.loads(path.read_text())) for path in SweepFolder.path.glob(f"*/{RECORD}")]
        own = sorted((record["number"], folder, record) for folder, record in saved if record["call"] == self.call)
        jobs = [
            Job(folder=folder, varied=record["varied"], failed=record["status"] != DONE) for _, folder, record in own
        ]
        status = DONE if self.status is None else self.status
        try:
            if jobs:
                show_sweep(SweepFolder.path, jobs)
        except InputError as error:  # the runs are done, but their table cannot be written
            print_stderr(str(error))
            status = MISTAKE
        failed = [f"{folder.name} ({record['reason']})" for _, folder, record in own if record["status"] != DONE]
        if failed:
            print_stderr(f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}")
        return FAILED if failed else status


def _metrics(folder: Path) -> dict[str, float] | None:
    """The metrics of a finished run by `<row>/<metric>`; None where it has none."""
    from uniad_lightning.results.run_folder import read_metrics

    metrics = read_metrics(folder)
    if metrics is None:
        return None
    rows = {row: metrics[row] for row in ("mean", "pooled") if row in metrics}
    return {f"{row}/{name}": value for row, values in rows.items() for name, value in values.items()}


@contextmanager
def _own_log(path: Path, *, here: bool) -> Iterator[None]:
    """Send what a job prints to `path`, unless it runs in the process that was called: parallel jobs would mix."""
    if here:
        yield
        return
    streams = {1: sys.stdout, 2: sys.stderr}
    saved = {number: os.dup(number) for number in streams}
    with path.open("a") as log:
        for number, stream in streams.items():
            stream.flush()
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            for number, stream in streams.items():
                stream.flush()
                os.dup2(saved[number], number)
                os.close(saved[number])


@contextmanager
def _device(cfg: Any) -> Iterator[None]:
    """Give a training one GPU of its own while it runs, where there are any; runs that share a GPU take turns."""
    from uniad_lightning.sweeps.devices import claimed, visible_gpus

    wanted = "trainer" in cfg and cfg.trainer.accelerator in ("auto", "gpu", "cuda")
    gpus = visible_gpus() if wanted else []
    if not gpus:
        yield
        return
    with claimed(gpus) as number:
        cfg.trainer.devices = [number]
        yield


def _refuse_processes(cfg: Any, command: str) -> None:
    if "trainer" in cfg and (cfg.trainer.devices != 1 or cfg.trainer.num_nodes != 1):
        raise InputError(
            f"trainer.devices={cfg.trainer.devices}, trainer.num_nodes={cfg.trainer.num_nodes} in a sweep: each "
            "process would start the sweep again; use trainer.devices=1, with hydra/launcher=parallel a run on each "
            f"device, or start runs of several processes one by one: uniad {command} trainer=ddp ..."
        )


def _refuse_without_package(cfg: Any, choices: Mapping[str, str]) -> None:
    """Raises InputError for an experiment or sweep that Hydra put under its group's name, where it has no effect."""
    for group in ("experiment", "sweep"):
        if group in cfg:
            raise InputError(
                f"{group}={choices[group]}: nothing in its file takes effect; let it begin with '# @package _global_'"
            )


def _quieten() -> None:
    """Silence Lightning's warnings about what is intended here."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",  # set by data.num_workers
        ".*in eval mode at the start of training",  # the frozen backbone
        ".*LeafSpec.* is deprecated",  # Lightning uses it, not this package
        ".*configure_optimizers` returned `None`",  # a method that is fitted in one pass
        ".*exists and is not empty",  # a resumed run
        ".*dirpath has changed",  # a resumed run whose folder was moved
        ".*smaller than the logging interval",  # small data sets
    ):
        warnings.filterwarnings("ignore", message=message)
