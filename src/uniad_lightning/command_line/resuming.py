"""Going on with a training: by its run folder, `resume=RUN`, or by the command that began it, `resume=auto`.

With `resume=RUN` the other words change the settings of that run, not those that conf/ composes. With `resume=auto`, as
for each job of a sweep, they are the words of the whole training, which is begun where its folder holds none.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from uniad_lightning.command_line.parsing import CommandLine
from uniad_lightning.command_line.quoting import in_quotes
from uniad_lightning.errors import InputError

AUTO = "auto"
_QUOTED = re.compile(r"""(['"])(.*)\1""", re.DOTALL)


def separate(line: CommandLine) -> CommandLine:
    """`line` as it is, or with `resume=RUN` as one for Hydra, and in `kept` what is for the settings of that run.

    Raises InputError where there is no such run.
    """
    given = {word: _key(word) for word in line.overrides}
    runs = [word.partition("=")[2] for word, key in given.items() if key == "resume"]
    if not runs or runs[-1] in ("", "null", AUTO):
        return line
    from uniad_lightning.training.resumed_settings import FREE_GROUPS, unfinished_run

    if "--multirun" in line.options:
        raise InputError(f"resume={runs[-1]}: goes on with one training, a sweep by its own command; leave -m out")
    quoted = _QUOTED.fullmatch(runs[-1])
    path = quoted[2] if quoted else runs[-1]
    folder = unfinished_run(path).folder
    kept = [word for word, key in given.items() if key != "resume" and key.partition(".")[0] != "hydra"]
    chosen = {given[word] for word in kept} & {*FREE_GROUPS}
    hydras = [word for word, key in given.items() if key.startswith("hydra.") or key.partition(".")[0] in chosen]
    if "hydra.run.dir" not in map(_key, hydras):  # Lightning gives it to the processes that it starts
        hydras.append(f"hydra.run.dir={in_quotes(str(folder))}")
    return line._replace(overrides=[*hydras, f"resume={in_quotes(path)}"], kept=kept)


def settled(cfg: Any, line: CommandLine) -> Any:
    """`cfg`, which Hydra composed of `line`; with `resume=RUN` the settings of that run with what `line` changes."""
    if line.kept is None:
        return cfg
    from uniad_lightning.training.resumed_settings import resumed_settings

    return resumed_settings(cfg, cfg.resume, line.kept)


def goes_on(cfg: Any, words: Sequence[str], *, swept: bool) -> bool:
    """Whether a training goes on where its folder holds a part of it: a job of a sweep, or one with `resume=auto`.

    Takes `auto` out of `cfg`. Raises InputError where the overrides `words` contradict it.
    """
    if cfg.resume != AUTO:
        return swept
    cfg.resume = None
    keys = set(map(_key, words))
    if not swept and "output_dir" not in keys:
        raise InputError("resume=auto: finds the training by its folder; give output_dir=..., the same in each call")
    for name in ("overwrite", "ckpt_path"):
        if cfg[name]:
            raise InputError(f"resume=auto: goes on with what is in output_dir, so {name} has no place; leave one out")
    return True


def is_finished(cfg: Any) -> bool:
    """Whether the folder of this training holds its result; sets `cfg.ckpt_path` to resume one that is unfinished.

    Raises InputError for a folder that holds another training.
    """
    from uniad_lightning.results.run_folder import LAST, read_metrics
    from uniad_lightning.training.method import leave_out_unused
    from uniad_lightning.training.outlier_exposure import settle_outliers
    from uniad_lightning.training.resume import load_initial, plain, refuse_other_settings

    folder = Path(cfg.output_dir)
    if cfg.overwrite or cfg.ckpt_path is not None:
        return False
    finished = read_metrics(folder) is not None
    started = (folder / LAST).is_file()
    if finished or started:
        load_initial(cfg)
        leave_out_unused(cfg)
        settle_outliers(cfg)
        refuse_other_settings(plain(cfg), folder)
    if started and not finished:
        cfg.ckpt_path = str(folder / LAST)
    return finished


def remedy(command: str, folder: Path | None) -> str:
    """How to go on after an interrupt of a command in its output `folder`, None for that of a sweep."""
    from uniad_lightning.results.run_folder import LAST, METRICS

    if command in ("predict", "train_decoder"):
        return "continue with resume=true"
    if folder is None:
        return "the same command goes on with what is not done"
    if command != "train" or not (folder / LAST).is_file():
        return "start it again" if command != "train" else "it has left no checkpoint yet, start it again"
    if (folder / METRICS).is_file():
        return f"the training is done; continue with: uniad calibrate {quote(f'ckpt_path={folder}')}"
    return f"continue with: uniad train {quote(f'resume={folder}')}"


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")
