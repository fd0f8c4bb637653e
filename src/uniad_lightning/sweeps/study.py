"""One Optuna study that several workers fill together: they claim trials, and retry those of workers that died.

Uses Optuna's ask and tell: `Study.optimize`, on which Optuna's own heartbeat and retry depend, runs one trial per call,
while a launcher of Hydra's starts the jobs of several in one. Nor does it stop several workers at an exact number of
trials, retry an interrupted trial, or draw the same values when a search is continued.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    check_distribution_compatibility,
)
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from uniad_lightning.errors import InputError, one_line, print_stdout

HEARTBEAT = "seen"  # attribute of a running trial: time of the last heartbeat of its worker, in seconds since 1970
KILLED = "killed"  # attribute of a trial: how many workers have died with its parameters
_OBJECTIVE = "objective"
_SQLITE = "sqlite:///"
_DATABASE_TIMEOUT = 60  # seconds to wait for a database that another worker writes
_MAX_KILLED = 3  # parameters with which so many workers died are not tried again


class SharedStudy:
    """A study to be filled with `trials` finished trials by any number of workers.

    `sampler` builds the sampler of a trial from its number, so that workers and repeated calls draw different values.
    A trial without a heartbeat for `grace` seconds counts as killed; its parameters are tried again. Raises InputError
    for a storage that cannot be opened and for a study of another objective or direction.
    """

    def __init__(
        self,
        *,
        storage: str,
        name: str,
        objective: str,
        direction: str,
        space: Mapping[str, BaseDistribution],
        sampler: Callable[[int], BaseSampler],
        trials: int,
        grace: float,
    ):
        self.space = space
        self.sampler = sampler
        self.trials = trials
        self.grace = grace
        self.interval = grace / 6
        self.lock, self.study = _open(storage, name, direction)
        self.objective = objective
        saved = {_OBJECTIVE: self.study.user_attrs.get(_OBJECTIVE), "direction": self.study.direction.name.lower()}
        for key, wanted in ((_OBJECTIVE, objective), ("direction", direction)):
            if saved[key] not in (None, wanted):
                raise InputError(
                    f"hydra.sweeper.{key}={wanted}: study '{name}' has {saved[key]}; give another study, by "
                    "hydra.sweeper.study=NAME"
                )
        self._refuse_other_choices(name)

    def claim(self, count: int) -> list[Trial]:
        """Up to `count` trials to run; none when enough are finished.

        Waits while other workers run all the missing trials, and takes over a trial whose worker dies.
        """
        waiting = False
        while True:
            with self.lock:
                self._requeue_killed()
                claimed = [trial for _ in range(count) if (trial := self._ask()) is not None]
            running = len(self._in(TrialState.RUNNING))
            if claimed or not running:
                return claimed
            if not waiting:
                print_stdout(f"waiting for {running} trials of other workers", flush=True)
            waiting = True
            time.sleep(self.interval)

    def best(self) -> FrozenTrial | None:
        """The best trial, None where none is finished."""
        return self.study.best_trial if self.finished() else None

    def finished(self) -> list[FrozenTrial]:
        """The trials with a value, in the order of their numbers."""
        return self._in(TrialState.COMPLETE)

    def tell(self, trial: Trial, value: float | None) -> None:
        """Finish a trial with its value; without one it has failed."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        with self.lock:
            self.study.tell(trial, value, state=state, skip_if_finished=True)
            if value is not None:  # not before, since no run may have the objective
                self.study.set_user_attr(_OBJECTIVE, self.objective)

    def twin(self, trial: Trial) -> FrozenTrial | None:
        """An earlier trial with the same parameters, finished or running."""
        others = self._in(TrialState.COMPLETE, TrialState.RUNNING)
        return next((other for other in others if other.number < trial.number and other.params == trial.params), None)

    def value_of_twin(self, trial: Trial) -> float | None:
        """Wait for an earlier trial with the same parameters; returns its value, None when it has failed."""
        while (twin := self.twin(trial)) is not None and twin.state == TrialState.RUNNING:
            time.sleep(self.interval)
            with self.lock:
                self._requeue_killed()
        return None if twin is None else twin.value

    @contextmanager
    def heartbeat(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Send heartbeats of running trials; an error queues the parameters of the unfinished ones again."""
        over = threading.Event()

        def send() -> None:
            while not over.wait(self.interval):
                for trial in trials:
                    with suppress(RuntimeError, StorageInternalError):  # finished; or busy: the next one will do
                        trial.set_user_attr(HEARTBEAT, time.time())

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:  # an interrupt, too
            for trial in trials:
                self._requeue(trial, trial.user_attrs.get(KILLED, 0))
            raise
        finally:
            over.set()
            thread.join()

    def _refuse_other_choices(self, name: str) -> None:
        for trial in self.study.get_trials(deepcopy=False):
            for key in trial.distributions.keys() & self.space.keys():
                try:
                    check_distribution_compatibility(trial.distributions[key], self.space[key])
                except ValueError as error:
                    raise InputError(
                        f"{key}: study '{name}' has searched {trial.distributions[key]}, which does not go with "
                        f"{self.space[key]}; give another study, by hydra.sweeper.study=NAME"
                    ) from error

    def _in(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    def _ask(self) -> Trial | None:
        if len(self._in(TrialState.COMPLETE, TrialState.RUNNING)) >= self.trials:
            return None
        trial = self.study.ask()
        trial.set_user_attr(HEARTBEAT, time.time())
        wanted = self._in(TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING)
        if sum(other.number < trial.number for other in wanted) >= self.trials:  # another worker was faster
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        self.study.sampler = self.sampler(trial.number)
        for name, distribution in self.space.items():
            _suggest(trial, name, distribution)
        return trial

    def _requeue_killed(self) -> None:
        for trial in self._in(TrialState.RUNNING):
            started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
            if time.time() - trial.user_attrs.get(HEARTBEAT, started) > self.grace:
                self._requeue(trial, trial.user_attrs.get(KILLED, 0) + 1)

    def _requeue(self, trial: Trial | FrozenTrial, killed: int) -> None:
        """Fail a trial and queue its parameters again, unless it is finished or another worker has done so."""
        with self.lock:
            try:
                self.study.tell(trial.number, state=TrialState.FAIL)
            except (ValueError, RuntimeError):
                return
            if killed < _MAX_KILLED:
                self.study.enqueue_trial(trial.params, user_attrs={KILLED: killed})


def _open(storage: str, name: str, direction: str) -> tuple[AbstractContextManager, optuna.Study]:
    """The study, created where there is none, and a lock for what only one worker may do at a time.

    The lock does nothing for a database server: it locks rows, which Optuna relies on, and SQLite does not.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock: AbstractContextManager = nullcontext()
    options = {}
    try:
        if storage.startswith(_SQLITE):
            path = Path(storage.removeprefix(_SQLITE))
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(f"{path}.lock")
            options = {"connect_args": {"timeout": _DATABASE_TIMEOUT}}
        with lock:
            opened = optuna.storages.RDBStorage(storage, engine_kwargs=options)
            wanted = StudyDirection[direction.upper()]
            study = optuna.create_study(storage=opened, study_name=name, direction=wanted, load_if_exists=True)
    except Exception as error:  # of the file system, SQLAlchemy, a driver that is missing, or Optuna
        raise InputError(f"hydra.sweeper.storage: cannot be opened: {one_line(error)}") from error
    return lock, study


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> None:
    match distribution:
        case CategoricalDistribution():
            trial.suggest_categorical(name, distribution.choices)
        case IntDistribution():
            trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
        case FloatDistribution():
            trial.suggest_float(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
