"""Hydra's options may stand anywhere, and the user's own YAML files are found by every process of a run."""

import csv
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from support.settings import QUICK, UNIAD
from uniad_lightning.command_line.parsing import conf_dir, parse
from uniad_lightning.errors import InputError


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder `my` of the user's in the working directory, with an experiment, a sweep and mistakes."""
    files = {
        "experiment/mine": "# @package _global_\nname: mine\nmodel:\n  hidden_dim: 16\n",
        "experiment/without_package": "model:\n  hidden_dim: 16\n",
        "experiment/broken": "# @package _global_\nname: [mine\nseed: 3\n",
        "experiment/misspelt": "# @package _global_\ndefaults:\n  - override /backbone: tinny\n",
        "sweep/two_seeds": (
            "# @package _global_\nhydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 0,1\n"
        ),
        "whole": "defaults:\n  - train\n  - _self_\nname: whole\n",
    }
    for name, text in files.items():
        path = tmp_path / "my" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "my"


@pytest.mark.parametrize("answer", [["--cfg=job"], ["--cfg=hydra"], ["-m", "model.neighbor_size=x,y"]])
def test_what_hydra_answers_by_itself_is_not_read_by_a_later_call(uniad, tmp_path, answer):
    uniad("train", "experiment=demo", f"hydra.sweep.dir={tmp_path}", *answer)
    assert not HydraConfig.initialized()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["-m"], ["--multirun"]),
        (["--multirun"], ["--multirun"]),
        (["--config-dir", "my"], ["--config-dir={own}"]),
        (["--config-dir=my"], ["--config-dir={own}"]),
        (["-cd", "my"], ["--config-dir={own}"]),
        (["--cfg", "job", "--resolve"], ["--cfg=job", "--resolve"]),
        (["-c", "hydra", "-p", "hydra.run"], ["--cfg=hydra", "--package=hydra.run"]),
        (["--info"], ["--info=all"]),
        (["-i", "searchpath"], ["--info=searchpath"]),
        (["--info=defaults"], ["--info=defaults"]),
        (["--experimental-rerun", "x.pickle"], ["--experimental-rerun=x.pickle"]),
        (["--hydra-help"], ["--hydra-help"]),
        (["-h"], ["--help"]),
        (["-sc"], ["--shell-completion"]),
        (["-r"], ["--run"]),
    ],
    ids=lambda part: " ".join(part),
)
def test_an_option_may_stand_before_among_and_after_the_overrides(own, words, options):
    overrides = ["experiment=demo", "~logger", "+trainer.x=[1, -2]"]
    for place in range(len(overrides) + 1):
        line = parse("train", [*overrides[:place], *words, *overrides[place:]])
        assert line.overrides == overrides
        assert line.options == [option.format(own=own) for option in options]
        assert (line.config_name, line.folder) == ("train", str(conf_dir()))


def test_another_primary_configuration(own):
    line = parse("train", ["a=1", "-cn", "other", "b=2", "--config-path", "my"])
    assert (line.config_name, line.folder, line.own_folder) == ("other", str(own), None)
    assert (line.overrides, line.options) == (["a=1", "b=2"], [])
    assert parse("train", ["--config-path=pkg://mine.conf"]).folder == "pkg://mine.conf"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--config-dir", "absent"], "/absent: no such folder"),
        (["seed=1", "--config-dir"], "expected one argument"),
        (["--confg-dir", "my"], "--confg-dir: no such option. Did you mean '--config-dir'?"),
        (["--cfg", "everything"], "choose from"),
        (["--resolve"], "in conjunction with --cfg"),
        (["-m", "--cfg", "job"], "Only one of"),
        (["--experimental-rerun", "absent.pickle"], "absent.pickle does not exist"),
        (["--config-path", "absent"], "/absent"),
        (["-cn", "absent"], "absent"),
        (["--config-dir", "my", "experiment=mien"], "Did you mean 'mine'? Options:"),
        (["experiment=dmeo", "--config-dir", "my"], "Did you mean 'demo'? Options:"),
        (["experiment=broken", "--config-dir", "my"], "/my/experiment/broken.yaml, line 3, column 5: expected ','"),
        (["--config-dir", "my", "experiment=misspelt"], "backbone=tinny: no such option. Did you mean 'tiny'?"),
        (["experiment=without_package", "--config-dir=my", "data.root=x"], "# @package _global_"),
        (["modle.x=1", "--config-dir", "my"], "modle.x: no such key"),
        (
            ["model=memory_bank", "model.coreste=1"],
            "model.coreste: no such key or group. Did you mean 'model.coreset'?",
        ),
        (["model=cnn", "model.num_heads=4"], "model.num_heads: no such key or group. Did you mean 'model."),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
@pytest.mark.filterwarnings("ignore:Experimental rerun")
def test_a_mistake_is_one_line(own, uniad, words, said):
    status, _, err = uniad("train", *words)
    assert status == 2
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_file_that_would_lose_to_one_of_the_package_is_refused(own, uniad):
    (own / "trainer").mkdir()
    (own / "trainer" / "smoke.yaml").write_text("max_epochs: 77\n")
    status, _, err = uniad("train", "--config-dir", "my", "experiment=mine", "data.root=x")
    assert status == 2
    assert err.strip().endswith("my/trainer/smoke.yaml: has the name of a file that comes with the package; rename it")


def test_an_option_before_the_command_is_explained():
    done = subprocess.run([UNIAD, "--config-dir", "my", "train"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "uniad COMMAND --config-dir" in done.stderr


def test_parse_is_loud_about_an_absent_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        parse("train", [f"--config-dir={tmp_path}/absent"])


def test_own_experiment_and_own_primary_configuration(own, uniad):
    for words in (["--config-dir", "my", "experiment=mine"], ["experiment=mine", "-cd", "my", "--cfg", "job"]):
        status, out, err = uniad("train", *words, *([] if "--cfg" in words else ["--cfg=job"]), "backbone=tiny")
        assert status == 0, err
        cfg = yaml.safe_load(out)
        assert (cfg["name"], cfg["model"]["hidden_dim"]) == ("mine", 16)
    status, out, err = uniad("train", "--cfg", "job", "-cn", "whole", "seed=4", "--config-dir", "my")
    assert status == 0, err
    assert (yaml.safe_load(out)["name"], yaml.safe_load(out)["seed"]) == ("whole", 4)


@pytest.mark.slow
def test_two_processes_find_the_own_experiment(own, tree):
    processes = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    settings = [word for word in QUICK if not word.startswith(("model.hidden_dim", "trainer=cpu"))]
    done = subprocess.run(
        [UNIAD, "train", *processes, "--config-dir", "my", "experiment=mine", *settings, f"data.root={tree}",
         "output_dir=run"], capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"]["hidden_dim"] == 16
    assert json.loads(Path("run/metrics.json").read_text())["categories"].keys() == {"bottle", "cable"}


@pytest.mark.slow
def test_jobs_of_an_own_sweep_find_the_own_experiment(own, uniad, tree):
    settings = [word for word in QUICK if not word.startswith("model.hidden_dim")]
    status, _, err = uniad(
        "train", "experiment=mine", *settings, "--config-dir", "my", "sweep=two_seeds", f"data.root={tree}",
        "output_dir=runs",
    )  # fmt: skip
    assert status == 0, err
    with Path("runs/sweep.csv").open() as file:
        runs = [row["run"] for row in csv.DictReader(file)]
    assert runs == ["seed-0", "seed-1"]
    for run in runs:
        assert yaml.safe_load(Path(f"runs/{run}/config.yaml").read_text())["model"]["hidden_dim"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["--version"], ["table"], ["data"]])
def test_a_reader_that_has_gone_is_no_error(words):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([UNIAD, *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
