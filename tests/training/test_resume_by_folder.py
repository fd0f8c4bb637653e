"""`uniad train resume=RUN`: the run's own settings, its own folder, and what may be changed on top of them."""

import os
import shutil
import signal
import subprocess
import time

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from support.checkpoints import weights
from support.configs import CONF
from support.settings import SMALL, UNIAD
from uniad_lightning.errors import InputError
from uniad_lightning.training.train import train


@pytest.fixture(scope="module")
def whole(tree, tmp_path_factory):
    """A run whose settings differ from all defaults in many ways; its evaluation is missing, as after a kill."""
    folder = tmp_path_factory.mktemp("runs") / "a run, of mine"
    words = [*SMALL, "model.masked=[true,false,true]", "loss=cosine", "seed=3", f"data.root={tree}"]
    done = subprocess.run(
        [UNIAD, "train", *words, f"output_dir='{folder}'"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "metrics.json").unlink()
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of it elsewhere: the folder may have been moved."""
    return shutil.copytree(whole, tmp_path / "a run, moved")


def config(folder):
    return yaml.safe_load((folder / "config.yaml").read_text())


@pytest.mark.parametrize("given", ["{}", "{}/checkpoints/last.ckpt", "'{}'"])
def test_a_run_goes_on_in_its_folder_with_its_settings(uniad, whole, run, given):
    before = (whole / "results.csv").read_text()
    status, out, err = uniad("train", f"resume={given.format(run)}")
    assert status == 0, err
    assert (run / "metrics.json").is_file()
    assert (run / "results.csv").read_text() == before
    for key in ("model", "loss", "seed", "data", "optimizer"):
        assert config(run)[key] == config(whole)[key]
    assert config(run)["callbacks"]["checkpoint"]["dirpath"] == str(run / "checkpoints")
    assert not (whole / "metrics.json").exists()  # nothing is written where the run was


def test_settings_that_do_not_decide_the_result_may_change(uniad, run):
    status, _, err = uniad(
        "train", f"resume={run}", "data.num_workers=1", "callbacks.heatmaps.per_category=2", "logger=none",
        "data.eval_batch_size=3",
    )  # fmt: skip
    assert status == 0, err
    changed = config(run)
    assert (changed["data"]["num_workers"], changed["data"]["eval_batch_size"]) == (1, 3)
    assert changed["callbacks"]["heatmaps"]["per_category"] == 2
    assert changed["logger"] == {}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.lr=0.5"], "was trained with optimizer.lr=0.001, this run has optimizer.lr=0.5"),
        (["trainer.max_epochs=9"], "was trained with trainer.max_epochs=2, this run has trainer.max_epochs=9"),
        (["optimiser.lr=0.5"], "optimiser.lr=0.5: resume=RUN has no such setting. Did you mean 'optimizer.lr'?"),
        (["experiment=parts"], "experiment=parts: resume=RUN has the settings of that run already"),
        (["trainer=gpu"], "such as trainer.accelerator=cpu"),
        (["output_dir=x"], "output_dir=x: resume=RUN goes on in its own folder; leave it out"),
        (["seed=1,2"], "seed=1,2: resume=RUN goes on with one training; give one value"),
        (["-m"], "a sweep by its own command"),
        (["seed=[1"], "seed=[1: cannot be read as key=value"),
    ],
)
def test_what_may_not_change_is_refused_in_one_line(uniad, run, words, said):
    status, _, err = uniad("train", f"resume={run}", *words)
    assert status == 2
    (line,) = [line for line in err.splitlines() if "warning" not in line]
    assert said.replace("RUN", str(run)) in line
    assert (run / "checkpoints/last.ckpt").is_file()


def test_what_is_no_unfinished_run_is_refused_in_one_line(uniad, run, tmp_path):
    def refusal(path):
        status, _, err = uniad("train", f"resume={path}")
        assert status == 2
        (line,) = err.splitlines()
        return line

    assert "is no run of uniad train" in refusal(tmp_path / "absent")
    assert "is no run of uniad train" in refusal(shutil.copy(run / "checkpoints/last.ckpt", tmp_path))
    (run / "metrics.json").write_text("{}")
    assert "that training is finished; to train further start from its weights by init_from=" in refusal(run)
    (run / "metrics.json").unlink()
    (run / "config.yaml").write_text("trainer:\n  _target_: os.system\n")
    assert "trainer._target_ is 'os.system'" in refusal(run)
    (run / "config.yaml").write_text("a: [")
    assert "config.yaml, line" in refusal(run)
    (run / "checkpoints/last.ckpt").unlink()
    assert "has no checkpoints/last.ckpt yet" in refusal(run)


@pytest.mark.slow
def test_the_line_that_an_interrupted_training_prints_goes_on_when_it_is_pasted(tree, tmp_path):
    words = [*SMALL, "trainer.max_epochs=60", "standardize=true", "schedule=cosine", f"data.root={tree}"]
    straight = subprocess.run([UNIAD, "train", *words, f"output_dir={tmp_path}/straight"], check=False)
    assert straight.returncode == 0
    folder = tmp_path / "it's mine, $1"
    process = subprocess.Popen(
        [UNIAD, "train", *words, f'output_dir="{folder}"'], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    last = folder / "checkpoints" / "last.ckpt"
    while not last.is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    line = err.strip().splitlines()[-1].partition("continue with: ")[2]
    assert line.startswith("uniad train ")
    assert torch.load(last, weights_only=True)["global_step"] < 240
    path = os.pathsep.join([str(UNIAD.parent), os.environ["PATH"]])
    pasted = subprocess.run(
        line, shell=True, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert pasted.returncode == 0, pasted.stderr
    assert "of them done" in pasted.stdout
    one, other = weights(tmp_path / "straight"), weights(folder)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert (tmp_path / "straight/results.csv").read_text() == (folder / "results.csv").read_text()


def test_python_is_told_what_to_give_instead(tmp_path):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["data.root=x", "resume=run", f"output_dir={tmp_path}"])
    with pytest.raises(InputError, match="resume=run: is read by the command line alone; in Python give ckpt_path"):
        train(cfg)
