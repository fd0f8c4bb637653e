"""Real processes (gloo), launched in each way that there is, give the numbers of one."""

import csv
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import psutil
import pytest
import torch

from support.checkpoints import weights
from support.paths import TESTS
from support.settings import FEATURES, SMALL, UNIAD
from support.trees import mvtec_tree

pytestmark = pytest.mark.slow

# 50 steps with jitter and dropout; 20 train images, 11 test images of which `cable` has one.
LONG = ["data.batch_size=12", "trainer.max_epochs=50", "data.eval_batch_size=3", "data.cache=disk"]
DDP = ["trainer=ddp", "trainer.accelerator=cpu"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = mvtec_tree(tmp_path_factory.mktemp("odd"), train=10, good=3, size=(64, 64))
    single = root / "cable" / "test"
    for path in [*single.glob("good/*"), *single.glob("scratch/*"), *(root / "cable/ground_truth/scratch").glob("*")]:
        path.unlink()
    more = mvtec_tree(tmp_path_factory.mktemp("more"), categories=["bottle"], good=7, size=(64, 64))
    for i in range(3, 7):
        (more / "bottle/test/good" / f"{i:03d}.png").rename(root / "bottle/test/good" / f"{i:03d}.png")
    return root


def words(root, folder, *more):
    return ["train", *SMALL, *LONG, *DDP, f"data.root={root}", f"output_dir={folder}", *more]


def finish(*processes):
    """Wait for processes, all of which must succeed; what they printed together."""
    ended = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), ended
    assert not [line for _, err in ended for line in err.splitlines() if "sync_dist" in line or "UserWarning" in line]
    return "".join(out for out, _ in ended)


def started(command, **env):
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **env}
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def by_lightning(root, folder, world):
    return finish(started([UNIAD, *words(root, folder, f"trainer.devices={world}")], UNIAD_CACHE=f"{folder}-cache"))


def by_torchrun(root, folder, world):
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={world}", "--no-python"]
    launch += [f"--master-port={free_port()}"]
    return finish(
        started([*launch, UNIAD, *words(root, folder, f"trainer.devices={world}")], UNIAD_CACHE=f"{folder}-cache")
    )


def by_slurm(root, folder, world):
    """What `srun` would start on as many nodes, one process on each."""
    common = {
        "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "uniad", "SLURM_NTASKS": str(world), "SLURM_NNODES": str(world),
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()), "UNIAD_CACHE": f"{folder}-cache",
    }  # fmt: skip
    more = ["trainer.devices=1", f"trainer.num_nodes={world}"]
    return finish(
        *(
            started(
                [UNIAD, *words(root, folder, *more)],
                **common, SLURM_PROCID=str(rank), SLURM_NODEID=str(rank), SLURM_LOCALID="0",
            )
            for rank in range(world)
        )
    )  # fmt: skip


LAUNCHED = {1: by_lightning, 2: by_slurm, 3: by_lightning, 4: by_torchrun}


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """The same 50 steps by one to four processes."""
    folder = tmp_path_factory.mktemp("ddp")
    for world, launch in LAUNCHED.items():
        assert launch(root, folder / str(world), world).count("run folder:") == 1
    return folder


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    for name, value in one.items():
        found = other[name]
        if name.endswith("in_proj_bias"):  # the key's third has a zero gradient but for rounding
            width = len(value) // 3
            value, found = (torch.cat([v[:width], v[2 * width :]]) for v in (value, found))
        assert (value.float() - found.float()).abs().max() < 1e-5, name


@pytest.mark.parametrize("world", [2, 3, 4])
def test_weights_after_50_steps_with_jitter_and_dropout_agree(runs, world):
    saved = torch.load(runs / f"{world}/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 50
    assert saved["config"]["model"]["dropout"] == 0.1
    assert saved["config"]["model"]["jitter"]["scale"] == 20
    assert_same_weights(runs / "1", runs / str(world))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_metrics_agree(runs, world):
    one, other = (json.loads((runs / name / "metrics.json").read_text()) for name in ("1", str(world)))
    assert one["categories"].keys() == other["categories"].keys() == {"bottle", "cable"}
    assert other["pooled"]["images"] == 11
    assert other["categories"]["cable"]["images"] == 1
    assert other["categories"]["cable"]["image_auroc"] is None
    for row in ("mean", "pooled"):
        for name, value in one[row].items():
            assert other[row][name] == pytest.approx(value, abs=1e-4), (row, name)


@pytest.mark.parametrize("world", [2, 3, 4])
def test_pictures_and_files_are_those_of_one_process(runs, world):
    one, other = (
        sorted(p.relative_to(runs / w).as_posix() for p in (runs / w).rglob("*.*")) for w in ("1", str(world))
    )
    assert one == other


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_each_feature_is_computed_by_one_process_alone(runs, world):
    (index,) = (runs / f"{world}-cache").rglob("index.sqlite")
    with sqlite3.connect(index) as connection:
        ((given,),) = connection.execute("select next from slots").fetchall()
        ((kept,),) = connection.execute("select count(*) from entry").fetchall()
    assert given == kept == 20 + 11


@pytest.mark.parametrize(("chosen", "images"), [("[bottle,cable]", 11), ("[cable]", 1)])
def test_an_evaluation_by_three_processes_is_that_of_one(runs, tmp_path, chosen, images):
    """Also of fewer images than processes."""
    checkpoint = [f"ckpt_path={runs}/1/checkpoints/last.ckpt", f"data.categories={chosen}"]
    finish(started([UNIAD, "evaluate", *DDP, "trainer.devices=3", *checkpoint, f"output_dir={tmp_path}/run"]))
    one, three = (json.loads((folder / "metrics.json").read_text()) for folder in (runs / "1", tmp_path / "run"))
    assert three["pooled"]["images"] == images
    for row in ["mean", "pooled"] if images == 11 else []:
        for name, value in one[row].items():
            assert three[row][name] == pytest.approx(value, abs=1e-6), (row, name)
    assert three["categories"]["cable"]["pixel_auroc"] == pytest.approx(one["categories"]["cable"]["pixel_auroc"])


def test_a_killed_process_ends_the_run_which_goes_on_with_another_number_of_them(root, runs, tmp_path):
    folder, last = tmp_path / "run", tmp_path / "run/checkpoints/last.ckpt"
    process = started([UNIAD, *words(root, folder, "trainer.devices=2")])
    while not last.is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    (other,) = (c for c in psutil.Process(process.pid).children() if "train_ddp_process" in " ".join(c.cmdline()))
    begun = time.monotonic()
    other.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 60
    assert process.returncode == 1
    assert "uniad: process 1 of 2 was killed by signal 9" in err.splitlines()[-1]
    assert f"resume it with: uniad train resume={tmp_path / 'run'}" in err
    assert 0 < torch.load(last, weights_only=True)["global_step"] < 50
    finish(started([UNIAD, *words(root, folder, "trainer.devices=3", f"ckpt_path={last}")]))
    assert_same_weights(runs / "1", folder)


def test_an_interrupt_of_all_processes_ends_with_its_own_status(root, tmp_path):
    process = subprocess.Popen(
        [UNIAD, *words(root, tmp_path / "run", "trainer.devices=2", "trainer.max_epochs=5000")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background shells ignore it
    )  # fmt: skip
    while not (tmp_path / "run/checkpoints/last.ckpt").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "exit status" not in err
    assert "uniad: interrupted" in err


@pytest.mark.parametrize("mode", ["auto", "disk"])
def test_one_rank_without_room_for_features_is_all_without(root, tmp_path, mode):
    """All go on computing them, or all end: none waits for another."""
    given = words(
        root, tmp_path / "run", "trainer.devices=2", "trainer.max_epochs=2", f"data.cache={mode}",
        "+callbacks.full._target_=support.stand_in.full_on_the_second_rank",
    )  # fmt: skip
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    process = started([UNIAD, *given], UNIAD_CACHE=f"{tmp_path}/cache", PYTHONPATH=path)
    _, err = process.communicate(timeout=300)
    if mode == "auto":
        assert process.returncode == 0, err
        assert err.count("features are not cached; ") == 1
        assert "another process cannot keep the features" in err
    else:
        assert process.returncode != 0
        assert "choose another folder, or data.cache=off" in err
        assert "Traceback" not in err


def test_statistics_of_batch_norms_are_those_of_the_first_process_when_an_evaluation_starts(root, tmp_path):
    """What each process has gathered of its own images would otherwise score its part of the test images."""
    more = ["model=cnn", "model.hidden_dim=16", "validate_every=2", "trainer.max_epochs=2", "data.cache=off"]
    settings = [*FEATURES, *DDP, "trainer.devices=2", f"data.root={root}", f"output_dir={tmp_path}/run"]
    finish(started([UNIAD, "train", *settings, *more]))
    with (tmp_path / "run/logs/version_0/metrics.csv").open(newline="") as file:
        logged = [float(row["mean/pixel_auroc"]) for row in csv.DictReader(file) if row["mean/pixel_auroc"]]
    assert len(logged) == 2  # while training, and at the end of the checkpoint
    assert logged[0] == pytest.approx(logged[1], abs=1e-6)


def test_a_bank_that_two_processes_have_filled_is_calibrated_by_the_first_alone(root, tmp_path):
    settings = [*FEATURES, *DDP, "trainer.devices=2", f"data.root={root}", f"output_dir={tmp_path}/run"]
    finish(started([UNIAD, "train", *settings, "model=memory_bank", "model.coreset=0.3", "calibrate=true"]))
    assert json.loads((tmp_path / "run/calibration/calibration.json").read_text())["overall"]["images"] == 20
