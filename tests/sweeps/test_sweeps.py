"""Sweeps: one after another, at the same time, on a cluster's launcher; they go on where they were ended."""

import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

from support.settings import SMALL, UNIAD
from uniad_lightning.command_line.job_folders import job_folder, sweep_folder
from uniad_lightning.command_line.jobs import _device
from uniad_lightning.sweeps.devices import claimed, visible_gpus
from uniad_lightning.sweeps.table import Job, gather, show_sweep, spread

pytestmark = pytest.mark.slow

QUICK = [*SMALL, "trainer.max_epochs=1", "data.cache=disk"]


@pytest.fixture
def sweep(uniad, tree, tmp_path):
    """Run a sweep in `tmp_path/out`: (status, stdout, stderr)."""

    def call(*more):
        return uniad("train", *QUICK, f"data.root={tree}", f"output_dir={tmp_path}/out", "-m", *more)

    return call


def records(folder):
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/job.json")}


def finished_at(folder):
    return {path.parent.name: path.stat().st_mtime_ns for path in folder.glob("*/metrics.json")}


def test_seeds_are_put_together_in_a_table_and_a_picture(sweep, tmp_path):
    status, out, err = sweep("model.neighbor_size=3,5", "seed=0,1")
    assert status == 0, err
    with (tmp_path / "out/sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model.neighbor_size"], row["seed"]) for row in rows] == [
        ("3", "0"),
        ("3", "1"),
        ("5", "0"),
        ("5", "1"),
    ]
    numbers = [float(row["pixel_auroc"]) for row in rows]
    for first, second in (numbers[:2], numbers[2:]):
        assert f"{50 * (first + second):.2f} ± {100 * abs(first - second) / 2**0.5:.2f}" in out
    with Image.open(tmp_path / "out/sweep.png") as picture:
        assert picture.size[0] > 800
        assert np.asarray(picture).std() > 5


def test_a_finished_job_is_left_as_it_is_and_another_setting_is_refused(sweep, tmp_path):
    assert sweep("seed=0,1")[0] == 0
    before = finished_at(tmp_path / "out")
    status, out, err = sweep("seed=0,1,2")
    assert status == 0, err
    after = finished_at(tmp_path / "out")
    assert "finished before with the same settings" in out
    assert after.keys() == {"seed-0", "seed-1", "seed-2"}
    assert before.items() <= after.items()
    status, _, err = sweep("seed=0,1", "optimizer.lr=2e-3")
    assert status == 1
    assert "already holds a run with optimizer.lr=0.001, this one has optimizer.lr=0.002" in err
    status, _, err = sweep(
        "seed=0,1", "backbone.weights=tiny.safetensors"
    )  # a resumed run may change these, not a result
    assert status == 1
    assert "backbone.weights=random, this one has backbone.weights=tiny.safetensors" in err
    assert finished_at(tmp_path / "out") == after
    assert sweep("seed=0,1", "optimizer.lr=2e-3", "overwrite=true")[0] == 0
    assert finished_at(tmp_path / "out")["seed-0"] > after["seed-0"]


def test_jobs_at_the_same_time_share_the_features_and_a_failed_one_is_named(tree, tmp_path):
    cache = tmp_path / "cache"
    done = subprocess.run(
        [UNIAD, "train", *QUICK, f"data.root={tree}", f"data.cache_dir={cache}", f"output_dir={tmp_path}/out", "-m",
         "hydra/launcher=parallel", "hydra.launcher.n_jobs=2", "model.neighbor_size=3,4", "seed=0,1",
         "backbone.weights=tiny.safetensors"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("uniad: 2 of 4 runs failed: model.neighbor_size-4_seed-0 (model.neighbor_size=")
    assert "expected an odd size" in last
    assert "4 out of   4" in done.stderr + done.stdout  # joblib's count, with the time that is left
    found = records(tmp_path / "out")
    assert {name for name, record in found.items() if record["status"] == 0} == finished_at(tmp_path / "out").keys()
    assert len(found) == 4
    assert {yaml.safe_load((tmp_path / f"out/{name}/config.yaml").read_text())["seed"] for name in
            finished_at(tmp_path / "out")} == {0, 1}  # fmt: skip
    assert "run folder:" in (tmp_path / "out/model.neighbor_size-3_seed-0/log.txt").read_text()
    assert "run folder:" not in done.stdout
    assert len(list(cache.iterdir())) == 1


def test_the_cluster_launcher_runs_jobs_in_processes_of_their_own(tree, tmp_path):
    done = subprocess.run(
        [UNIAD, "train", *QUICK, f"data.root={tree}", f"output_dir={tmp_path}/out", "-m",
         "hydra/launcher=submitit_local", "seed=0,1"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert finished_at(tmp_path / "out").keys() == {"seed-0", "seed-1"}
    assert "sweep.csv" in done.stdout
    assert all(record["status"] == 0 for record in records(tmp_path / "out").values())


def test_an_interrupted_sweep_goes_on_within_the_job_that_was_killed(tree, tmp_path):
    command = [UNIAD, "train", *QUICK, "trainer.max_epochs=60", f"data.root={tree}", f"output_dir={tmp_path}/out"]
    command += ["-m", "seed=0,1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (tmp_path / "out/seed-1/checkpoints/last.ckpt").is_file():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert finished_at(tmp_path / "out").keys() == {"seed-0"}
    reached = torch.load(tmp_path / "out/seed-1/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert reached < 60 * 4
    before = finished_at(tmp_path / "out")
    again = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr
    assert finished_at(tmp_path / "out")["seed-0"] == before["seed-0"]
    config = yaml.safe_load((tmp_path / "out/seed-1/config.yaml").read_text())
    assert config["ckpt_path"] == f"{tmp_path}/out/seed-1/checkpoints/last.ckpt"
    assert torch.load(config["ckpt_path"], weights_only=True)["global_step"] == 60 * 4


def test_several_processes_in_a_sweep_are_refused_with_the_command_to_use(sweep):
    status, _, err = sweep("seed=0,1", "trainer=ddp", "trainer.devices=2")
    assert status == 1
    assert "trainer.devices=2, trainer.num_nodes=1 in a sweep: each process would start the sweep again" in err
    assert "uniad train trainer=ddp" in err


def test_a_launcher_that_is_not_installed_is_named(uniad):
    status, _, err = uniad("train", *QUICK, "-m", "hydra/launcher=ray", "seed=0")
    assert status == 2
    assert err.startswith("uniad: hydra/launcher=ray: no such option.")
    assert "uniad-lightning[sweep]" in err


def test_a_sweep_without_a_folder_has_one_without_a_time_stamp():
    assert sweep_folder("runs/demo/2026-01-31_10-11-12", "neighbor_size") == "runs/demo/neighbor_size"
    assert sweep_folder("runs/demo/2026-01-31_10-11-12", None) == "runs/demo/sweep"
    assert sweep_folder("runs/mine", "neighbor_size") == "runs/mine"


def test_folders_are_named_by_what_varies():
    task = ["experiment=demo", "model.neighbor_size=7", "data.categories=[bottle,cable]", "+x.y=1e-3"]
    assert job_folder(task, ["experiment"]) == "model.neighbor_size-7_data.categories-bottle-cable-_x.y-1e-3"
    assert job_folder(["experiment=demo"], ["experiment"]) == "run"
    names = {job_folder([f"a={'x' * 150}{i}"], []) for i in range(2)}
    assert len(names) == 2
    assert all(len(name) <= 120 for name in names)


def test_what_varies_only_by_seed_is_gathered_and_others_are_not(tmp_path):
    def job(name, failed=False, auroc=0.5, **varied):
        (tmp_path / name).mkdir(parents=True)
        numbers = dict.fromkeys(
            ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max"), auroc
        )
        (tmp_path / name / "metrics.json").write_text(json.dumps({"mean": {**numbers, "aupro": None}}))
        return Job(tmp_path / name, varied, failed)

    jobs = [job("a", a="x", seed="0", auroc=0.4), job("b", a="x", seed="1", auroc=0.6), job("c", a="y", failed=True)]
    first, second = gather(jobs)
    assert (first.values, first.runs, first.numbers["image_auroc"]) == ({"a": "x"}, 2, [0.4, 0.6])
    assert first.numbers["aupro"] == []
    assert (second.values, second.runs) == ({"a": "y"}, 0)
    assert spread([0.4, 0.6], 2) == "50.00 ± 14.14"
    assert spread([0.5], 1) == "50.00"
    assert spread([0.4, 0.6], 3) == "50.00 ± 14.14 (2 of 3)"
    assert spread([], 2) == "nan"
    show_sweep(tmp_path, jobs)
    assert (tmp_path / "sweep.png").is_file()
    single = [job("d/run", auroc=0.4)]  # a multirun in which nothing varies
    show_sweep(tmp_path / "d", single)
    assert (tmp_path / "d/sweep.csv").is_file()
    assert not (tmp_path / "d/sweep.png").exists()


CLAIM = """
import sys, time
from pathlib import Path
from uniad_lightning.sweeps.devices import claimed
gpus = sys.argv[2].split(",")
with claimed(gpus, folder=Path(sys.argv[1])) as number:
    print("claimed", gpus[number], flush=True)
    time.sleep(60)
"""


def test_each_process_has_a_device_of_its_own_until_it_ends_whatever_its_number(tmp_path):
    # As with other CUDA_VISIBLE_DEVICES in each: the same GPUs in another order, or only one of them.
    visible = ["GPU-a,GPU-b", "GPU-b,GPU-a", "GPU-b"]
    claims = []
    try:
        for gpus in visible:
            claims.append(
                subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path), gpus], stdout=subprocess.PIPE, text=True)
            )
            first = claims[-1].stdout.readline()
            if len(claims) == 1:
                assert first == "claimed GPU-a\n"
            elif len(claims) == 2:
                assert first == "claimed GPU-b\n"
        assert first.startswith("waits for the GPU that is visible")
        claims[1].kill()
        assert claims[2].stdout.readline().startswith("continues with GPU 0 (GPU-b)")
        assert claims[2].stdout.readline() == "claimed GPU-b\n"
    finally:
        for claim in claims:
            claim.kill()
            claim.wait()
    with claimed(["GPU-b", "GPU-a"], folder=Path(tmp_path)) as number:
        assert number == 0


@pytest.fixture
def stub_gpus(monkeypatch):
    """Have torch.cuda tell of GPUs with these identifiers; that is all this package asks of it here."""

    def call(*identifiers, visible=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(identifiers))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=identifiers[number])
        )
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return call


def test_a_gpu_goes_by_its_own_identifier_and_a_part_of_one_by_its_name(stub_gpus):
    stub_gpus("1234-ab", "5678-cd", visible="3,1")
    assert visible_gpus() == ["1234-ab", "5678-cd"]
    stub_gpus("1234-ab", visible="GPU-1234-ab")
    assert visible_gpus() == ["1234-ab"]
    stub_gpus("1234-ab", visible="MIG-7f-1, MIG-7f-2")  # CUDA shows the first alone
    assert visible_gpus() == ["MIG-7f-1"]
    stub_gpus()
    assert visible_gpus() == []


@pytest.mark.parametrize(
    ("gpus", "accelerator", "devices"),
    [(["a"], "auto", [0]), (["a", "b"], "gpu", [0]), (["a", "b"], "cpu", 1), ([], "auto", 1)],
)
def test_a_run_of_a_sweep_claims_a_gpu_also_where_there_is_one(
    stub_gpus, monkeypatch, tmp_path, gpus, accelerator, devices
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stub_gpus(*gpus)
    cfg = OmegaConf.create({"trainer": {"accelerator": accelerator, "devices": 1}})
    with _device(cfg):
        assert cfg.trainer.devices == devices
        held = [path.name for folder in tmp_path.iterdir() for path in folder.iterdir()]
        assert held == (["a"] if devices == [0] else [])
