"""Hyperparameter search, `hydra/sweeper=search`: a Hydra sweeper whose jobs are the trials of an Optuna study.

Optuna is imported when a search begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import InstantiationException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from hydra.utils import instantiate
from omegaconf import DictConfig

from uniad_lightning.errors import InputError, did_you_mean, one_line, print_stdout

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from uniad_lightning.sweeps.study import SharedStudy

PLUGIN = "hydra_plugins.search.Search"  # Hydra instantiates plugins only under names that begin so
PLOT = "search.png"
LOG = "log"  # tag(log,interval(...))


class Undefined(Exception):
    """The objective of a search is undefined in a run; the message is one line."""


def register() -> None:
    """Have Hydra find the sweeper under the name `PLUGIN`; publicly it only looks into the package hydra_plugins."""
    Plugins.instance().class_name_to_class[PLUGIN] = Search


class Search(Sweeper):
    """Searches parameters, each over a space in Hydra's syntax, for the best value of one metric.

    Adds trials to `study` in `storage` until `trials` of them are finished by any worker; gives up when as many have
    failed in this call. `at_once` trials go to the launcher together. Raises InputError for settings that cannot be
    used, and where Optuna is not installed; `sweep` raises Undefined at the first run whose metric is undefined.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(
        self,
        *,
        study: str,
        storage: str,
        trials: int,
        objective: str,
        direction: str,
        sampler: DictConfig,
        seed: int | None,
        at_once: int,
        grace: float,
        params: Mapping[str, Any],
    ):
        for name, count in (("trials", trials), ("at_once", at_once), ("grace", grace)):
            if not isinstance(count, int | float) or count < 1:
                raise InputError(f"hydra.sweeper.{name}={count}: expected a number of at least 1")
        if direction not in ("maximize", "minimize"):
            raise InputError(f"hydra.sweeper.direction={direction}: expected maximize or minimize")
        self.study = study
        self.storage = storage
        self.trials = trials
        self.objective = objective
        self.direction = direction
        self.sampler = sampler
        self.seed = seed
        self.at_once = at_once
        self.grace = grace
        self.params = params
        self.fixed: list[str] = []

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until enough are finished; prints each, and at the end the best."""
        shared = self._open(arguments)
        failed = 0
        while failed < self.trials and (batch := shared.claim(self.at_once)):
            values = self._run(batch, shared)
            failed += list(values.values()).count(None)
            for number, value in values.items():
                print_stdout(
                    f"trial {number}: " + ("failed" if value is None else f"{self.objective} {value:.4f}"), flush=True
                )
        if failed >= self.trials:
            print_stdout(f"gave up: {failed} trials of this call failed")
        self._show(shared)

    def _open(self, arguments: Sequence[str]) -> SharedStudy:
        try:
            from uniad_lightning.sweeps.study import SharedStudy
        except ImportError as error:
            raise InputError(
                f"hydra/sweeper=search: {one_line(error)}; pip install 'uniad-lightning[sweep]'"
            ) from error
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        given = {override.get_key_element(): override for override in parser.parse_overrides(overrides)}
        space = {key: distribution(override) for key, override in given.items() if override.is_sweep_override()}
        if not space:
            raise InputError(
                "hydra/sweeper=search: nothing to search; give a parameter a space, such as "
                "'optimizer.lr=tag(log,interval(1e-5,1e-3))' or 'model.neighbor_size=choice(3,5,7)'"
            )
        self.fixed = [str(override.input_line) for key, override in given.items() if key not in space]
        self.validate_batch_is_legal([self._overrides(params) for params in samples(space)])
        self._sampler(0)
        return SharedStudy(
            storage=self.storage,
            name=self.study,
            objective=self.objective,
            direction=self.direction,
            space=space,
            sampler=self._sampler,
            trials=self.trials,
            grace=self.grace,
        )

    def _sampler(self, number: int) -> BaseSampler:
        from uniad_lightning.randomness import key

        seed = None if self.seed is None else key("trial", self.seed, number) % 2**32
        try:
            return instantiate(self.sampler, seed=seed)
        except InstantiationException as error:
            raise InputError(f"hydra.sweeper.sampler: {one_line(error.__cause__ or error)}") from error

    def _overrides(self, params: Mapping[str, Any]) -> list[str]:
        return [*self.fixed, *as_overrides(params)]

    def _run(self, batch: Sequence[Trial], shared: SharedStudy) -> dict[int, float | None]:
        """Run the jobs of some trials and record them in the study; returns values by number, None for a failed trial.

        Parameters of an earlier or running trial are not run again: two runs would share a folder.
        """
        values = {}
        with shared.heartbeat(batch):
            new = [trial for trial in batch if shared.twin(trial) is None]
            jobs = self.launcher.launch([self._overrides(trial.params) for trial in new], batch[0].number)
            for trial, job in zip(new, jobs, strict=True):
                values[trial.number] = self._value(job)
                shared.tell(trial, values[trial.number])
            for trial in batch:
                if trial.number not in values:
                    values[trial.number] = shared.value_of_twin(trial)
                    shared.tell(trial, values[trial.number])
        return values

    def _value(self, job: JobReturn) -> float | None:
        metrics = job.return_value
        if metrics is None:
            return None
        if self.objective not in metrics:
            raise InputError(
                f"hydra.sweeper.objective={self.objective}: no such metric.{did_you_mean(self.objective, metrics)} "
                f"A run has {', '.join(metrics)}"
            )
        value = metrics[self.objective]
        if value is None or value != value:
            numbers = {name: other for name, other in metrics.items() if not name.endswith("/images")}
            defined = [name for name, other in numbers.items() if other is not None and other == other]
            raise Undefined(
                f"hydra.sweeper.objective={self.objective}: is undefined on this test split, so that no trial is "
                f"better than another; the search ends. Defined: {', '.join(defined) or 'none'}"
            )
        return value

    def _show(self, shared: SharedStudy) -> None:
        """Print the best trial and plot all."""
        from uniad_lightning.sweeps.search_plot import Tried, draw_search  # heavy, and Hydra imports this module

        def tried(trial: FrozenTrial) -> Tried:
            return Tried(trial.number, trial.values[0], trial.params)

        best, trials = shared.best(), shared.finished()
        if best is None:
            return
        plot = Path(self.config.hydra.sweep.dir) / PLOT
        log = [key for key, space in best.distributions.items() if getattr(space, "log", False)]
        draw_search(list(map(tried, trials)), tried(best), objective=self.objective, log=log, path=plot)
        print_stdout(f"search {self.study}: {len(trials)} trials finished; plot: {plot}")
        params = " ".join(as_overrides(best.params))
        print_stdout(f"best {self.objective} {best.value:.4f}, trial {best.number}: {params}")
        print_stdout("it was chosen on the test split, so it is optimistic")


def distribution(override: Override) -> BaseDistribution:
    """The space of a parameter for Optuna; raises InputError for one that is empty or cannot be searched."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    sweep: Any = override.value()
    text = override.input_line
    log = getattr(sweep, "tags", set()) == {LOG}
    if getattr(sweep, "tags", set()) - {LOG} or (log and override.is_choice_sweep()):
        raise InputError(f"{text}: unknown tag; expected tag(log,interval(LOW,HIGH))")
    try:
        if override.is_choice_sweep():
            return CategoricalDistribution(list(dict.fromkeys(override.sweep_string_iterator())))
        values = [sweep.start, sweep.end] if override.is_interval_sweep() else sorted(sweep.range())
        if not values or values[0] > values[-1]:
            raise ValueError("empty; expected interval(LOW,HIGH) or range(LOW,HIGH) with LOW below HIGH")
        low, high, step = values[0], values[-1], abs(sweep.step) if override.is_range_sweep() else None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log, step=step or 1)
        return FloatDistribution(low, high, log=log, step=step)
    except ValueError as error:
        raise InputError(f"{text}: {one_line(error)}") from error


def samples(space: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Sets of parameters that together have every choice, and the lowest value of every other space."""
    values = {key: part.choices if hasattr(part, "choices") else (part.low,) for key, part in space.items()}
    longest = max(map(len, values.values()))
    return [{key: tried[min(i, len(tried) - 1)] for key, tried in values.items()} for i in range(longest)]


def as_overrides(params: Mapping[str, Any]) -> list[str]:
    """Parameters as overrides of a command line, numbers with six digits."""
    return [
        f"{key}={float(f'{value:.6g}')!r}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    ]
