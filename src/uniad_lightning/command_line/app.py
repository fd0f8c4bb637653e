"""The jobs of one call, one or a sweep's many: each has a folder, is not done twice, and says how it ended.

Hydra's launchers run the jobs of a sweep here, in other processes or on other machines. What a job has to tell goes
through `job.json` in its folder. What is heavy is imported inside functions: Hydra imports this module.
"""

import hashlib
import json
import os
import re
import sys
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import OmegaConf, read_write

from uniad_lightning.command_line.commands import COMMANDS
from uniad_lightning.command_line.error_messages import explain
from uniad_lightning.command_line.words import CommandLine
from uniad_lightning.errors import InputError, LostError, complain, say
from uniad_lightning.exit_status import DONE, FAILED, INTERRUPTED, MISTAKE
from uniad_lightning.files.user_path import expand
from uniad_lightning.training.interrupts import end_if_interrupted, remembered

RECORD, LOG = "job.json", "log.txt"
_OUTPUT = re.compile(r"\+{0,2}(output_dir|hydra\.run\.dir)=")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")


class SweepFolder(Callback):
    """Remembers where the sweep of this process lies; Hydra tells it to callbacks alone."""

    path: Path | None = None

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Called by Hydra before the first job."""
        SweepFolder.path = Path(config.hydra.sweep.dir)


def sweep_folder(output_dir: str, sweep: str | None) -> str:
    """Where a sweep lies: `output_dir`, with the sweep's name for a time stamp, so that a repeated call goes on."""
    path = expand(output_dir)
    return str(path.with_name(sweep or "sweep") if _STAMP.fullmatch(path.name) else path)


def job_folder(task: Sequence[str], fixed: Sequence[str]) -> str:
    """A folder name for one job of a sweep from what varies, such as `model.neighbor_size-7`.

    `task` are all overrides of the job, `fixed` the keys that have one value in the whole sweep.
    """
    name = "_".join(f"{key}={value}" for key, value in varied(task, fixed).items())
    name = re.sub(r"[^\w.+-]+", "-", name).strip("-") or "run"
    whole = name.encode()
    if len(whole) <= 120:
        return name
    return f"{whole[:100].decode(errors='ignore')}-{hashlib.blake2b(whole, digest_size=6).hexdigest()}"


def varied(task: Sequence[str], fixed: Sequence[str]) -> dict[str, str]:
    """What of the overrides `task` is not `fixed`, by key."""
    pairs = (override.partition("=")[::2] for override in task)
    return {key.lstrip("+~"): value for key, value in pairs if key.lstrip("+~") not in fixed}


OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
OmegaConf.register_new_resolver("expand", lambda path: str(expand(path)), replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


class Jobs:
    """The jobs of one call of the command `name`.

    Hydra calls `run` for each, be it in this process or, by way of a pickle, in another.
    """

    def __init__(self, name: str, line: CommandLine):
        self.name = name
        self.line = line
        self.argv = sys.argv  # with which Lightning launches ranks; Hydra's parser needs another
        self.process = os.getpid()
        self.call = uuid.uuid4().hex
        self.status: int | None = None
        SweepFolder.path = None

    def run(self, cfg: Any) -> dict[str, float] | None:
        """One job; of a sweep, its metrics as `mean/image_auroc` and so on. Raises nothing but KeyboardInterrupt."""
        hydra_cfg = HydraConfig.get()
        sys.argv = self.argv
        cfg.output_dir = hydra_cfg.runtime.output_dir
        swept = hydra_cfg.mode == RunMode.MULTIRUN
        if not swept:
            self.status, _ = self._attempt(cfg, hydra_cfg, swept=False)
            return None
        folder = Path(cfg.output_dir)
        values = varied(hydra_cfg.overrides.task, hydra_cfg.job.config.override_dirname.exclude_keys)
        begun, record = time.monotonic(), {"call": self.call, "number": hydra_cfg.job.num, "varied": values}
        self._write(folder, {**record, "status": None, "reason": "its process ended without a word"})
        with _own_log(folder / LOG, here=os.getpid() == self.process):
            status, reason = self._attempt(cfg, hydra_cfg, swept=True)
        seconds = round(time.monotonic() - begun, 1)
        self._write(folder, {**record, "status": status, "reason": reason, "seconds": seconds})
        if os.getpid() != self.process:
            end = "done" if status == DONE else f"failed: {reason}"
            complain(f"{folder.name}: {end} ({seconds:.0f} s; {folder / LOG})")
        return _metrics(folder) if status == DONE else None

    @remembered()  # in a process of its own, too
    def _attempt(self, cfg: Any, hydra_cfg: Any, *, swept: bool) -> tuple[int, str]:
        """Run a job; its exit status and, where it failed, the reason."""
        try:
            _refuse_without_package(cfg, hydra_cfg.runtime.choices)
            if OmegaConf.select(cfg, "ckpt_path") is not None:
                cfg.ckpt_path = str(expand(cfg.ckpt_path))
            if not swept:
                with _free_folder(cfg, hydra_cfg):
                    return self._call(cfg), ""
            _refuse_processes(cfg, self.name)
            if self.name == "train" and _go_on(cfg):
                say(f"{cfg.output_dir}: finished before with the same settings, left as it is")
                return DONE, ""
            with _device(cfg):
                return self._call(cfg), ""
        except (KeyboardInterrupt, SystemExit):  # Lightning turns the first into the second
            self.status = INTERRUPTED
            raise KeyboardInterrupt from None
        except Exception as error:
            end_if_interrupted()  # some libraries make another error of an interrupt
            return report(error, self.name, self.line)

    def _call(self, cfg: Any) -> int:
        module = import_module(f"uniad_lightning.{COMMANDS[self.name].module}")
        _quieten()  # after the import, since Lightning sets its own level when it is imported
        command: Callable[[Any], object] = getattr(module, self.name)
        return FAILED if getattr(command(cfg), "incomplete", False) else DONE

    @staticmethod
    def _write(folder: Path, record: dict[str, Any]) -> None:
        from uniad_lightning.results.run_folder import write_text

        write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")

    def finish(self) -> int:
        """The exit status of the whole call, after a sweep's table."""
        if SweepFolder.path is None:
            return DONE if self.status is None else self.status  # None: Hydra itself answered, such as --cfg
        from uniad_lightning.sweeps.table import Job, show_sweep

        found = [(path.parent, json.loads(path.read_text())) for path in SweepFolder.path.glob(f"*/{RECORD}")]
        mine = sorted((record["number"], folder, record) for folder, record in found if record["call"] == self.call)
        jobs = [
            Job(folder=folder, varied=record["varied"], failed=record["status"] != DONE) for _, folder, record in mine
        ]
        status = DONE
        try:
            if jobs:
                show_sweep(SweepFolder.path, jobs)
        except InputError as error:  # the runs are done, their table cannot be kept
            complain(str(error))
            status = MISTAKE
        failed = [f"{folder.name} ({record['reason']})" for _, folder, record in mine if record["status"] != DONE]
        if failed:
            complain(f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}")
        return FAILED if failed else status


def _metrics(folder: Path) -> dict[str, float] | None:
    """The numbers of a finished run, flat."""
    from uniad_lightning.results.run_folder import read_metrics

    metrics = read_metrics(folder)
    if metrics is None:
        return None
    rows = {row: metrics[row] for row in ("mean", "pooled") if row in metrics}
    return {f"{row}/{name}": value for row, values in rows.items() for name, value in values.items()}


def _go_on(cfg: Any) -> bool:
    """Whether the folder of this training holds it finished; where it holds its beginning, have it resumed.

    Raises InputError for a folder that holds another one.
    """
    from uniad_lightning.results.run_folder import LAST, read_metrics
    from uniad_lightning.training.resume import plain, refuse_other_settings

    folder = Path(cfg.output_dir)
    if cfg.overwrite or cfg.ckpt_path is not None:
        return False
    finished = read_metrics(folder) is not None
    begun = (folder / LAST).is_file()
    if finished or begun:
        refuse_other_settings(plain(cfg), folder)
    if begun and not finished:
        cfg.ckpt_path = str(folder / LAST)
    return finished


@contextmanager
def _free_folder(cfg: Any, hydra_cfg: Any) -> Iterator[None]:
    """Give a call without an output_dir one of its own, which the time alone does not: two may begin in one second."""
    from uniad_lightning.results.output_folder import hold_free, is_first

    chosen = [word for word in (*hydra_cfg.overrides.task, *hydra_cfg.overrides.hydra) if _OUTPUT.match(word)]
    if chosen or not is_first() or not _STAMP.fullmatch(Path(cfg.output_dir).name):
        yield
        return
    with hold_free(Path(cfg.output_dir)) as folder:
        cfg.output_dir = str(folder)
        with read_write(hydra_cfg):
            hydra_cfg.run.dir = str(folder)  # Lightning hands it to the processes it launches
        yield


@contextmanager
def _own_log(path: Path, *, here: bool) -> Iterator[None]:
    """Send what a job prints to `path`, unless it runs in the process that was called: jobs at the same time mix."""
    if here:
        yield
        return
    streams = {1: sys.stdout, 2: sys.stderr}
    kept = {number: os.dup(number) for number in streams}
    with path.open("a") as log:
        for number, stream in streams.items():
            stream.flush()
            os.dup2(log.fileno(), number)
        try:
            yield
        finally:
            for number, stream in streams.items():
                stream.flush()
                os.dup2(kept[number], number)
                os.close(kept[number])


@contextmanager
def _device(cfg: Any) -> Iterator[None]:
    """Give a training one GPU of its own where there are any, for as long as it lasts; on one GPU runs take turns."""
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
    """Refuse an experiment or sweep that Hydra has put under its group's name, where it changes nothing."""
    for group in ("experiment", "sweep"):
        if group in cfg:
            raise InputError(
                f"{group}={choices[group]}: nothing in its file takes effect; let it begin with '# @package _global_'"
            )


def _quieten() -> None:
    """Silence what Lightning says about things that are as they should be here."""
    import logging
    import warnings

    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers",  # data.num_workers is in the config for all to see
        ".*in eval mode at the start of training",  # the frozen backbone
        ".*LeafSpec.* is deprecated",  # between Lightning and torch
        ".*`configure_optimizers` returned `None`",  # a method that is fitted in one pass
        ".*exists and is not empty",  # a resumed run
        ".*smaller than the logging interval",  # small data sets
    ):
        warnings.filterwarnings("ignore", message=message)


def report(error: Exception, name: str, line: CommandLine) -> tuple[int, str]:
    """One line on stderr for a user's mistake, a traceback for a fault of ours; the exit status and the reason."""
    if os.environ.get("UNIAD_DEBUG") == "1":
        traceback.print_exception(error)
    explanation = explain(error, name, line)
    if explanation is None:
        if os.environ.get("UNIAD_DEBUG") != "1":
            traceback.print_exception(error)
        return FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
    complain(explanation)
    return (FAILED if isinstance(error, LostError) else MISTAKE), explanation
