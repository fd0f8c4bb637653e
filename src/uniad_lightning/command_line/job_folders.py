"""Where jobs of a sweep and calls without an output_dir put their files, and which file of a run folder is read.

conf/hydra/default.yaml names the resolvers.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf, read_write

from uniad_lightning.files.user_path import expand

_OUTPUT = re.compile(r"\+{0,2}(output_dir|hydra\.run\.dir)=")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d")


def sweep_folder(output_dir: str, sweep: str | None) -> str:
    """The folder of a sweep: `output_dir` with the sweep's name for a time stamp, so that a repeated call continues."""
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
    """The overrides in `task` whose keys are not `fixed`, by key."""
    pairs = (override.partition("=")[::2] for override in task)
    return {key.lstrip("+~"): value for key, value in pairs if key.lstrip("+~") not in fixed}


def checkpoint_file(path: Path, command: str) -> str:
    """The file that a `ckpt_path` means, which may be a run folder; a training resumes from its last state.

    Raises InputError for a folder without a run.
    """
    from uniad_lightning.results.run_folder import LAST, reported_checkpoint

    if command == "train" and (path / LAST).is_file():
        return str(path / LAST)
    return str(reported_checkpoint(path, "ckpt_path"))


@contextmanager
def free_folder(cfg: Any, hydra_cfg: Any) -> Iterator[None]:
    """Give a call without an output_dir a folder of its own; the time alone does not, as two may start in one second.

    Changes `cfg.output_dir` and Hydra's copy of it.
    """
    from uniad_lightning.results.output_folder import hold_free, is_first

    overrides = (*hydra_cfg.overrides.task, *hydra_cfg.overrides.hydra)
    if any(map(_OUTPUT.match, overrides)) or not is_first() or not _STAMP.fullmatch(Path(cfg.output_dir).name):
        yield
        return
    with hold_free(Path(cfg.output_dir)) as folder:
        cfg.output_dir = str(folder)
        with read_write(hydra_cfg):
            hydra_cfg.run.dir = str(folder)  # Lightning hands it to the processes it launches
        yield


OmegaConf.register_new_resolver("sweep_folder", sweep_folder, replace=True)
OmegaConf.register_new_resolver("expand", lambda path: str(expand(path)), replace=True)
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
