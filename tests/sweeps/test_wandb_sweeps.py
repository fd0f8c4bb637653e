"""Each file of `sweeps/` gives W&B's own agent a command that composes, and that runs in a folder of its own."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, RangeSweep
from omegaconf import OmegaConf
from wandb import wandb_agent
from wandb.sdk.launch.sweeps.utils import load_sweep_config

from support.paths import ROOT
from support.settings import SMALL
from support.wandb_files import read
from uniad_lightning.paper import numbers as paper
from uniad_lightning.results.run_folder import read_metrics

pytestmark = pytest.mark.slow

FILES = {path.stem: load_sweep_config(str(path)) for path in sorted((ROOT / "sweeps").glob("*.yaml"))}


def bounds(parameter):
    """The first and the last value that a search may give a parameter."""
    values = parameter.get("values") or [parameter["min"], parameter["max"]]
    return values[0], values[-1]


@pytest.fixture
def start(monkeypatch, tmp_path, tree):
    """Have W&B's agent start one run of a sweep, offline, in `tmp_path`; further words go before its parameters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("MVTEC_AD", str(tree))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep")
    for kind in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{kind}_DIR", str(tmp_path / kind))  # not in the user's home
    for variable in ("WANDB_DIR", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.setenv(variable, "")  # the agent sets these itself: so they are as before after the test
        monkeypatch.delenv(variable)

    def call(config, run_id, values, *words):
        agent = wandb_agent.Agent(api=None, queue=None, sweep_id="sweep")
        agent._sweep_command = [*config["command"][:-1], *words, config["command"][-1]]
        args = {name: {"value": value} for name, value in values.items()}
        agent._process_command({"type": "run", "run_id": run_id, "program": config["program"], "args": args})
        return agent._run_processes[run_id]

    return call


@pytest.fixture
def words(start, monkeypatch):
    """What the agent would run: the words after the name of the program."""

    def call(*of_run):
        monkeypatch.setattr(wandb_agent, "AgentProcess", lambda command, **_: SimpleNamespace(command=command))
        env, program, *words = start(*of_run).command
        assert (env, program) == ("/usr/bin/env", "uniad")
        return words

    return call


@pytest.mark.parametrize("end", [0, 1], ids=["first", "last"])
@pytest.mark.parametrize("name", FILES)
def test_the_agents_command_composes(words, command, tree, name, end):
    config = FILES[name]
    values = {key: bounds(parameter)[end] for key, parameter in config["parameters"].items()}
    status, out, err = command(*words(config, "run7", values), "--cfg", "job", "--resolve")
    assert status == 0, err
    cfg = OmegaConf.create(out)
    assert {key: OmegaConf.select(cfg, key) for key in values} == values
    assert cfg.output_dir == f"runs/{name}/run7"
    assert (cfg.logger.wandb.project, cfg.logger.wandb.group) == (config["project"], name)
    assert (cfg.trainer.devices, cfg.trainer.num_nodes) == (1, 1)
    assert cfg.name in ("mvtec", "demo")
    assert cfg.name == "demo" or cfg.data.root == str(tree)


def test_a_machine_that_does_not_say_where_its_data_is_gets_one_line(words, command, monkeypatch):
    of_run = words(FILES["neighbor_size"], "run7", {"model.neighbor_size": 7})
    monkeypatch.delenv("MVTEC_AD")
    status, _, err = command(*of_run)
    assert status == 2
    assert err.count("\n") == 1
    assert "MVTEC_AD" in err


@pytest.mark.parametrize("name", FILES)
def test_hydras_sweep_of_that_name_varies_the_same(name):
    swept = yaml.safe_load((ROOT / "conf" / "sweep" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    parsed = {key: OverridesParser.create().parse_override(f"{key}={text}").value() for key, text in swept.items()}
    ours = FILES[name]["parameters"]
    assert ours.keys() == parsed.keys()
    for key, sweep in parsed.items():
        if isinstance(sweep, IntervalSweep):
            assert bounds(ours[key]) == (sweep.start, sweep.end)
        else:
            assert ours[key] == {"values": list(sweep.range() if isinstance(sweep, RangeSweep) else sweep.list)}


def test_grids_are_the_papers_tables():
    assert FILES["neighbor_size"]["parameters"]["model.neighbor_size"]["values"] == list(paper.TABLE_5C)
    assert FILES["jitter_scale"]["parameters"]["model.jitter.scale"]["values"] == list(paper.TABLE_5E)


def test_files_keep_to_wandbs_schema():
    reason = "W&B's package sweeps, which needs NumPy below 2, is not installed"
    sweeps = pytest.importorskip("sweeps", reason=reason)
    if sweeps.__file__ is None:  # a folder of that name on the path
        pytest.skip(reason)
    assert {
        name: sweeps.schema_violations_from_proposed_config(config) for name, config in FILES.items()
    } == dict.fromkeys(FILES, [])


def test_two_runs_of_an_agent_leave_two_folders(start, tmp_path, capfd):
    config = FILES["neighbor_size"]
    sizes = {"first": 1, "second": 5}
    runs = {run: start(config, run, {"model.neighbor_size": size}, *SMALL) for run, size in sizes.items()}
    statuses = {run: process.wait(timeout=300) for run, process in runs.items()}
    assert statuses == dict.fromkeys(sizes, 0), capfd.readouterr().err
    assert {path.name for path in (tmp_path / "runs" / "neighbor_size").iterdir()} == set(sizes)
    for run, size in sizes.items():
        folder = tmp_path / "runs" / "neighbor_size" / run
        assert OmegaConf.load(folder / "config.yaml").model.neighbor_size == size
        written = read(folder)
        assert (written.run.run_id, written.run.run_group) == (run, "neighbor_size")  # by its id W&B knows the run
        config_of_agent = {item.key: json.loads(item.value_json) for item in written.run.config.update}
        assert config_of_agent["model.neighbor_size"] == size
        final = read_metrics(folder)["mean"]["image_auroc"]
        assert written.summary[config["metric"]["name"]] == pytest.approx(final)
