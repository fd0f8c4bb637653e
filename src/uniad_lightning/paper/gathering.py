"""Finished runs for a table: searched below folders, read, and checked to be comparable."""

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.errors import InputError
from uniad_lightning.paper.rows import alone, system
from uniad_lightning.results.run_folder import CONFIG, METRICS, read_metrics
from uniad_lightning.settings import flat
from uniad_lightning.training.resume import FREE_TO_CHANGE
from uniad_lightning.training.saved_config import saved_config

_SEEDS = ("seed", "data.seed", "data.augmentation.seed")
# A resumed run may change these, but they change a result: random weights, prepared images, the best epoch.
_BEST = "callbacks.best._target_"
# Of a system's own training: what the paper of each says. The data that are trained and tested on are the same.
_OF_A_SYSTEM = ("image_size", "batch_size", "augmentation", "defects", "sampling", "cache")
_NOT_FREE = ("backbone.weights", "data.prepare", _BEST)


class Run(NamedTuple):
    """A finished training.

    Attributes:
        folder: its run folder.
        settings: its resolved configuration, by dotted names.
        metrics: its `metrics.json`; numbers are fractions of 1.
    """

    folder: Path
    settings: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def seed(self) -> int:
        """The seed of its weights, order and noise."""
        return self.settings["seed"]

    @property
    def alone(self) -> str | None:
        """The one category it was trained on, as in the paper's separate case; None in the unified case."""
        return alone(self.settings)

    @property
    def of_best_epoch(self) -> bool:
        """Whether its numbers are of the epoch that is best on the test split (`callbacks=best_on_test`)."""
        return _BEST in self.settings

    @property
    def categories(self) -> dict[str, dict[str, Any]]:
        """The numbers of each tested category."""
        return self.metrics["categories"]


class Difference(NamedTuple):
    """A setting in which two runs differ, with the value and the folder of each."""

    name: str
    values: tuple[Any, Any]
    folders: tuple[Path, Path]


def find_runs(places: Iterable[Path]) -> tuple[list[Run], dict[Path, str]]:
    """The finished runs in or below the `places`, each once, and by folder why others are left out.

    Raises InputError for a place that is no folder or has no run, and for a file that cannot be read.
    """
    runs, left_out = {}, {}
    for place in places:
        if not place.is_dir():
            raise InputError(f"{place}: no such folder; expected a run folder, or one that holds run folders")
        folders = list(_run_folders(place))
        if not folders:
            raise InputError(
                f"{place}: holds no run; expected folders with {CONFIG} and {METRICS}, as a training leaves"
            )
        for folder in folders:
            run = _read(folder)
            if isinstance(run, str):
                left_out[folder] = run
            else:
                runs[folder.resolve()] = run
    return list(runs.values()), left_out


def _run_folders(place: Path) -> Iterator[Path]:
    """Folders with a configuration, and empty ones, as a job leaves that failed early."""
    for folder, below, files in os.walk(place):
        if CONFIG in files or not (below or files):
            below.clear()
            yield Path(folder)
        below.sort()


def _read(folder: Path) -> Run | str:
    """The run in `folder`, or why it is left out."""
    path = folder / CONFIG
    if not path.is_file():
        return "failed before it started: the folder is empty"
    settings = settings_of(saved_config(path))
    metrics = read_metrics(folder)
    if metrics is None:
        return f"is unfinished: it has no {METRICS}"
    if not {"mean", "pooled", "categories"} <= metrics.keys():
        raise InputError(f"{folder / METRICS}: has no mean, pooled and categories; evaluate the run again")
    return Run(folder, settings, metrics)


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved configuration by dotted names; `backbone.weights` as `random` or `trained`, whatever the file."""
    settings = flat(config)
    weights = settings.get("backbone.weights")
    return {**settings, "backbone.weights": weights if weights == "random" else "trained"}


def differences(runs: Sequence[Run], *, varied: Collection[str]) -> Iterator[Difference]:
    """The settings, sorted, that can change a result and differ among the `runs`.

    Seeds and `varied` (names of settings or groups) are not compared, and of `model` only settings that both runs have,
    since networks have different ones.
    """
    free = (*FREE_TO_CHANGE, *_SEEDS)
    for name in sorted({name for run in runs for name in run.settings}):
        if _within(name, varied) or (_within(name, free) and not _within(name, _NOT_FREE)):
            continue
        having = [run for run in runs if name in run.settings or not name.startswith("model.")]
        first = having[0]
        for other in having[1:]:
            values = first.settings.get(name), other.settings.get(name)
            if values[0] != values[1]:
                yield Difference(name, values, (first.folder, other.folder))
                break


def _within(name: str, groups: Collection[str]) -> bool:
    return any(name == group or name.startswith(f"{group}.") for group in groups)


def refuse_differing(runs: Sequence[Run], *, varied: Collection[str]) -> None:
    """Raises InputError that names the first of the `differences`, or a difference in the test images of two runs."""
    for name, values, folders in differences(runs, varied=varied):
        raise InputError(
            f"{name} is {values[0]} in {folders[0]} and {values[1]} in {folders[1]}; a table compares runs of the same "
            "data and settings, so give it only those"
        )
    images: dict[str, tuple[int, Path]] = {}
    for run in runs:
        for category, row in run.categories.items():
            count, folder = images.setdefault(category, (row["images"], run.folder))
            if count != row["images"]:
                raise InputError(
                    f"{category} has {count} test images in {folder} and {row['images']} in {run.folder}; a table "
                    "compares runs of the same data, so give it only those"
                )
    whole = [run for run in runs if run.alone is None]
    for run in whole[1:]:
        if run.categories.keys() != whole[0].categories.keys():
            first, other = (", ".join(sorted(compared.categories)) for compared in (whole[0], run))
            raise InputError(
                f"the categories are {first} in {whole[0].folder} and {other} in {run.folder}; a table compares runs "
                "of the same data, so give it only those"
            )


def refuse_differing_systems(runs: Sequence[Run], *, varied: Collection[str]) -> None:
    """`refuse_differing` among the runs of each system of the tables, and for their data among all."""
    by_system: dict[str | None, list[Run]] = {}
    for run in runs:
        by_system.setdefault(system(run.settings), []).append(run)
    for of_system in by_system.values():
        refuse_differing(of_system, varied=varied)
    if len(by_system) > 1:
        groups = {name.partition(".")[0] for run in runs for name in run.settings} - {"data"}
        refuse_differing(runs, varied=(*varied, *groups, *(f"data.{name}" for name in _OF_A_SYSTEM)))


def by_seed(runs: Iterable[Run]) -> dict[int, list[Run]]:
    """The runs of one setting by seed: one each or, in the separate case, one for each category.

    Raises InputError for two runs with the same seed, which would count as two seeds.
    """
    seeds: dict[int, list[Run]] = {}
    for run in runs:
        of_seed = seeds.setdefault(run.seed, [])
        for other in of_seed:
            if other.alone == run.alone:
                raise InputError(
                    f"{other.folder} and {run.folder} are the same setting with the same seed={run.seed}; a deviation "
                    "over seeds needs different ones, so leave out one of them"
                )
        of_seed.append(run)
    return dict(sorted(seeds.items()))
