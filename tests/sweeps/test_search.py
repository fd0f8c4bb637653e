"""`hydra/sweeper=search`: spaces, a study that goes on, several workers, and a search over real trainings."""

import csv
import inspect
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import optuna
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from support.settings import SMALL
from uniad_lightning.command_line.cli import conf_dir
from uniad_lightning.errors import InputError
from uniad_lightning.sweeps.search import PLUGIN, Search, as_overrides, distribution, samples
from uniad_lightning.sweeps.study import HEARTBEAT, KILLED, SharedStudy

pytestmark = pytest.mark.slow

LOG_RATE = "optimizer.lr=tag(log,interval(1e-4,1e-2))"
SETTINGS = yaml.safe_load((conf_dir() / "hydra/sweeper/search.yaml").read_text())

# A program of its own with this sweeper, run in this process or in others: its value is -(x - 3)^2, known when so many
# processes have begun a job.
PROGRAM = """
import json, os, signal, time
import hydra
from uniad_lightning.sweeps.search import register

def job(cfg):
    with open("jobs.txt", "a") as file:
        file.write(json.dumps([cfg.x, os.getpid()]) + "\\n")
    while len({json.loads(line)[1] for line in open("jobs.txt")}) < cfg.processes:
        time.sleep(0.05)
    return None if cfg.kind == "bad" else {"mean/value": -((cfg.x - 3.0) ** 2), "mean/other": 1.0}

def main():
    register()
    hydra.main(config_path=os.getcwd(), config_name="program", version_base="1.3")(job)()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without
    main()
"""
CONFIG = f"""
defaults:
  - override hydra/sweeper: search
  - override hydra/job_logging: none
  - override hydra/hydra_logging: none
x: 0.0
kind: good
processes: 1
hydra:
  searchpath: ["file://{conf_dir()}"]
  output_subdir: null
  sweep: {{dir: sweep, subdir: "${{hydra.job.num}}"}}
  sweeper: {{objective: mean/value}}
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The program's file, in a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    (tmp_path / "program.yaml").write_text(CONFIG)
    (tmp_path / "program.py").write_text(PROGRAM)
    return tmp_path / "program.py"


@pytest.fixture
def worker(program):
    """Start the program in a process of its own."""

    started = []

    def start(*words):
        line = [sys.executable, program, "-m", *words]
        started.append(subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def search(program, monkeypatch, capsys):
    """Run the program here; returns what it printed."""

    def run(*words):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [str(program), "-m", *words])
        runpy.run_path(str(program))["main"]()
        return capsys.readouterr().out

    return run


def jobs():
    with open("jobs.txt") as file:
        return [json.loads(line) for line in file]


def trials(*states, storage="sqlite:///sweep/search.db"):
    study = optuna.load_study(study_name="search", storage=storage)
    return study.get_trials(states=states or None)


def until(condition, seconds=30):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def shared(folder, **changes):
    settings = {
        "storage": f"sqlite:///{folder}/study.db",
        "name": "search",
        "objective": "mean/value",
        "direction": "maximize",
        "space": {"x": FloatDistribution(0.0, 1.0)},
        "sampler": lambda number: optuna.samplers.RandomSampler(seed=number),
        "trials": 3,
        "grace": 60,
    }
    return SharedStudy(**{**settings, **changes})


def test_every_setting_is_an_argument_and_the_name_is_the_registered_one():
    given = SETTINGS.keys() - {"_target_", "_recursive_"}
    assert given == inspect.signature(Search).parameters.keys()
    assert SETTINGS["_target_"] == PLUGIN


def test_optuna_is_not_imported_before_a_search():
    check = (
        "import sys, uniad_lightning.sweeps.search; assert 'hydra' in sys.modules; assert 'optuna' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def parsed(word):
    return OverridesParser.create().parse_override(word)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ("interval(1,5)", FloatDistribution(1.0, 5.0)),
        ("int(interval(1,5))", IntDistribution(1, 5)),
        ("tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
        ("range(1,9,step=2)", IntDistribution(1, 7, step=2)),
        ("range(9,1,step=-4)", IntDistribution(5, 9, step=4)),
        ("range(0,1,step=0.25)", FloatDistribution(0.0, 0.75, step=0.25)),
        ("shuffle(range(1,4))", IntDistribution(1, 3)),
        ("choice(3,5,7)", CategoricalDistribution(["3", "5", "7"])),
        ("a,b,a", CategoricalDistribution(["a", "b"])),
        ("null,[True,1],'x y'", CategoricalDistribution(["null", "[True,1]", "'x y'"])),
    ],
)
def test_a_space_of_hydra_is_one_of_optuna(space, expected):
    assert distribution(parsed(f"key={space}")) == expected


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("interval(5,1)", "empty"),
        ("range(5,1)", "empty"),
        ("tag(log,interval(0,1))", "`low"),
        ("tag(log,range(1,9,2))", "step"),
        ("tag(lgo,interval(1,2))", "tag(log,"),
        ("tag(log,choice(1,2))", "tag(log,"),
        ("range(1,5,0)", "zero"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(space, said):
    with pytest.raises(InputError, match=r"^key=") as refused:
        distribution(parsed(f"key={space}"))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_samples_hold_every_choice_and_parameters_are_written_as_overrides():
    space = {"a": CategoricalDistribution(["1", "2", "3"]), "b": CategoricalDistribution(["x", "y"])}
    found = samples({**space, "c": IntDistribution(4, 8)})
    assert {tuple(sample.values()) for sample in found} == {("1", "x", 4), ("2", "y", 4), ("3", "y", 4)}
    assert as_overrides({"a": "[1,2]", "b": 7, "c": 20.0, "d": 0.000123456789}) == [
        "a=[1,2]",
        "b=7",
        "c=20.0",
        "d=0.000123457",
    ]
    for value in (20.0, 1.5e-7, 0.000123456789, 12345678.9):
        word = as_overrides({"key": value})[0]
        assert parsed(word).value() == pytest.approx(value, rel=1e-5)
        assert isinstance(parsed(word).value(), float)


def test_a_search_that_is_called_again_draws_what_one_call_would_have(search):
    space = ["x=interval(-10,10)", "kind=choice(good,fine)"]
    search(*space, "hydra.sweeper.trials=7")
    search(*space, "hydra.sweeper.trials=12")
    assert len(jobs()) == 12
    out = search(*space, "hydra.sweeper.trials=12", "hydra.sweeper.storage=sqlite:///once.db")
    twice, once = trials(), trials(storage="sqlite:///once.db")
    assert [trial.params for trial in twice] == [trial.params for trial in once]
    assert len({trial.params["x"] for trial in once}) == 12
    best = max(once, key=lambda trial: trial.value)
    assert best.value == pytest.approx(-((best.params["x"] - 3) ** 2), abs=1e-3)
    assert f"best mean/value {best.value:.4f}, trial {best.number}: x=" in out
    assert search(*space, "hydra.sweeper.trials=12").splitlines() == out.splitlines()[-3:]
    assert len(jobs()) == 24
    assert os.path.getsize("sweep/search.png") > 10_000


def test_a_failed_trial_is_told_and_the_search_goes_on(search):
    search("x=interval(0,1)", "kind=choice(good,fine,bad)", "hydra.sweeper.trials=5")
    assert {trial.params["kind"] for trial in trials(TrialState.FAIL)} == {"bad"}
    finished = trials(TrialState.COMPLETE)
    assert len(finished) == 5
    assert {trial.params["kind"] for trial in finished} == {"good", "fine"}


def test_a_search_in_which_everything_fails_ends(search):
    out = search("x=interval(0,1)", "kind=bad", "hydra.sweeper.trials=3")
    assert "gave up: 3 trials" in out
    assert len(trials(TrialState.FAIL)) == 3


def test_the_same_parameters_are_run_once(search):
    search("x=choice(1,4)", "hydra.sweeper.at_once=3", "hydra.sweeper.trials=6")
    assert sorted(x for x, _ in jobs()) == [1, 4]
    assert {(trial.params["x"], trial.value) for trial in trials(TrialState.COMPLETE)} == {("1", -4.0), ("4", -1.0)}
    assert len(trials()) == 6


def test_a_metric_that_no_run_has_ends_the_search_and_its_trial_is_the_next_ones_first(search):
    with pytest.raises(InputError, match="no such metric. Did you mean 'mean/value'"):
        search("x=interval(0,1)", "hydra.sweeper.trials=3", "hydra.sweeper.objective=mean/valeu")
    search("x=interval(0,1)", "hydra.sweeper.trials=3")
    refused, again, *others = trials()
    assert refused.params == again.params
    assert [trial.value is None for trial in (refused, again, *others)] == [True, False, False, False]


def test_workers_that_start_together_share_the_trials(worker):
    words = ["x=interval(-10,10)", "processes=2", "hydra.sweeper.grace=30", "hydra.sweeper.trials=8"]
    workers = [worker(*words), worker(*words)]
    said = [process.communicate(timeout=120) for process in workers]
    assert [process.returncode for process in workers] == [0, 0], said
    assert len(trials(TrialState.COMPLETE)) == len({x for x, _ in jobs()}) == len(jobs()) == 8
    assert len({process for _, process in jobs()}) == 2
    (best,) = {out.splitlines()[-2] for out, _ in said}
    assert best.startswith("best mean/value")


def test_trials_of_one_batch_run_in_processes_of_their_own(worker):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.at_once=2"]
    process = worker("x=interval(-10,10)", "processes=2", "hydra.sweeper.trials=4", *parallel)
    assert process.wait(timeout=120) == 0
    assert len({process for _, process in jobs()}) == 2
    assert len(trials(TrialState.COMPLETE)) == 4


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_the_trial_of_a_process_that_was_ended_is_tried_again(worker, search, end):
    words = ["x=interval(-10,10)", "hydra.sweeper.trials=2"]
    process = worker(*words, "processes=2")
    until(lambda: os.path.isfile("jobs.txt") and jobs())
    process.send_signal(end)
    process.communicate(timeout=30)
    search(*words, *(["hydra.sweeper.grace=2"] if end == signal.SIGKILL else []))  # an interrupted one is told at once
    lost, *others = trials()
    assert lost.state == TrialState.FAIL
    assert lost.params in [trial.params for trial in others]
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 2


def test_a_trial_without_a_sign_of_life_is_queued_until_it_has_killed_three(tmp_path):
    study = shared(tmp_path)
    params = []
    for killed in range(3):
        (trial,) = study.claim(1)
        assert trial.user_attrs.get(KILLED, 0) == killed
        params.append(trial.params)
        trial.set_user_attr(HEARTBEAT, time.time() - 61)
    (other,) = study.claim(1)
    assert params[0] == params[1] == params[2] != other.params


def test_a_long_trial_gives_signs_of_life(tmp_path):
    study = shared(tmp_path, grace=12)
    (trial,) = study.claim(1)
    trial.set_user_attr(HEARTBEAT, time.time() - 13)
    with study.heartbeat([trial]):
        until(lambda: study.study.trials[0].user_attrs[HEARTBEAT] > time.time() - 12)
        assert not any(other.params == trial.params for other in shared(tmp_path, grace=12).claim(3))
        study.tell(trial, 1.0)
    assert study.best().number == trial.number


def test_of_two_workers_that_ask_at_once_only_one_gets_the_last_trial(tmp_path, monkeypatch):
    fast, slow = shared(tmp_path, trials=1), shared(tmp_path, trials=1)
    fast.lock = slow.lock = nullcontext()  # as with a server of databases
    ask = slow.study.ask
    monkeypatch.setattr(slow.study, "ask", lambda: (fast.claim(1), ask())[1])
    assert slow._ask() is None
    assert [trial.state for trial in fast.study.trials] == [TrialState.RUNNING, TrialState.FAIL]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"direction": "minimize"}, "hydra.sweeper.direction=minimize: study 'search' has maximize"),
        ({"objective": "mean/other"}, "hydra.sweeper.objective=mean/other: study 'search' has mean/value"),
        ({"space": {"x": CategoricalDistribution(["1", "2"])}}, "x: study 'search' has searched Float"),
        ({"storage": "sqlite:////proc/none/study.db"}, "hydra.sweeper.storage"),
        ({"storage": "nothing"}, "hydra.sweeper.storage"),
    ],
)
def test_a_study_of_another_kind_and_a_storage_that_cannot_be_opened_are_refused(tmp_path, changes, said):
    study = shared(tmp_path)
    study.tell(study.claim(1)[0], 1.0)
    with pytest.raises(InputError) as refused:
        shared(tmp_path, **changes)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lr=interval(5,1)"], "optimizer.lr=interval(5,1): empty"),
        (["model.neighbour_size=choice(3,5)"], "Did you mean 'model.neighbor_size'"),
        (["loss=choice(mse,cosin)"], "loss=cosin: no such option. Did you mean 'cosine'"),
        (["model.neighbor_size=choice(3,interval(1,2))"], "model.neighbor_size=choice(3,interval(1,2))"),
        ([], "nothing to search"),
        ([LOG_RATE, "hydra.sweeper.trials=0"], "hydra.sweeper.trials=0"),
        ([LOG_RATE, "hydra.sweeper.direction=up"], "hydra.sweeper.direction=up"),
        ([LOG_RATE, "hydra.sweeper.sampler._target_=optuna.samplers.TPSampler"], "hydra.sweeper.sampler"),
        ([LOG_RATE, "hydra.sweeper.storage=postgresql://host/base"], "hydra.sweeper.storage"),
        ([LOG_RATE, "hydra.sweeper.trails=3"], "trails"),
    ],
)
def test_a_mistake_is_one_line(uniad, tree, tmp_path, words, said):
    start = ["-m", "hydra/sweeper=search", f"data.root={tree}", f"output_dir={tmp_path / 'run'}"]
    status, _, err = uniad("train", *SMALL, *start, *words)
    assert status == 2, err
    assert len(err.splitlines()) == 1, err
    assert said in err


def test_without_optuna_one_line_says_what_to_install(uniad, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "uniad_lightning.sweeps.study")
    status, _, err = uniad("train", "-m", "hydra/sweeper=search", LOG_RATE, f"output_dir={tmp_path / 'run'}")
    assert status == 2
    assert err.count("\n") == 1
    assert "pip install 'uniad-lightning[sweep]'" in err


def test_a_search_over_trainings(uniad, tree, tmp_path):
    folder = tmp_path / "runs"
    words = [word for word in SMALL if not word.startswith(("optimizer.lr", "trainer.max_epochs"))]
    words += [
        f"data.root={tree}",
        f"output_dir={folder}",
        "sweep=search",
        "trainer.max_epochs=1",
        "model.jitter.scale=15",
    ]
    status, out, err = uniad("train", *words, "hydra.sweeper.trials=3")
    assert status == 0, err
    (best,) = [line for line in out.splitlines() if line.startswith("best mean/image_auroc")]
    found = trials(storage=f"sqlite:///{folder}/search.db")
    assert len(found) == 3
    assert {tuple(trial.params) for trial in found} == {("optimizer.lr",)}  # what has one value is not searched
    with (folder / "sweep.csv").open() as file:
        runs = [folder / row["run"] for row in csv.DictReader(file)]
    assert len(runs) == 3
    for trial, run in zip(found, runs, strict=True):
        assert trial.value == json.loads((run / "metrics.json").read_text())["mean"]["image_auroc"]
        rate = yaml.safe_load((run / "config.yaml").read_text())["optimizer"]["lr"]
        assert rate == pytest.approx(trial.params["optimizer.lr"], rel=1e-5)
        assert f"{rate}" in run.name
    written_at = [(run / "metrics.json").stat().st_mtime for run in runs]
    status, out, err = uniad("train", *words, "hydra.sweeper.trials=3")
    assert status == 0, err
    assert best in out.splitlines()
    assert [(run / "metrics.json").stat().st_mtime for run in runs] == written_at
