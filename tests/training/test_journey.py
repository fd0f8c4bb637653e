"""Command line in, files out: train, evaluate, recompute, resume, sweep."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from support.checkpoints import weights
from support.paths import ROOT
from support.settings import SMALL, UNIAD

NUMBERS = ["image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"]
COLUMNS = ["category", "images", *NUMBERS, *(f"{name}_{end}" for name in NUMBERS for end in ("low", "high"))]


@pytest.fixture(scope="module")
def trained(tree, tmp_path_factory):
    """A finished run of two epochs, by the real console script."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    done = subprocess.run(
        [UNIAD, "train", *SMALL, f"data.root={tree}", f"output_dir={folder}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def table(folder):
    with (folder / "results.csv").open() as file:
        return {
            row["category"]: {k: float(v) for k, v in row.items() if k != "category"} for row in csv.DictReader(file)
        }


def test_the_run_folder_holds_what_it_should(trained):
    folder, done = trained
    with (folder / "results.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == COLUMNS
    assert [row[0] for row in rows[1:]] == ["bottle", "cable", "mean", "pooled"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["categories"]) == {"bottle", "cable"}
    for name, row in table(folder).items():
        other = metrics[name] if name in ("mean", "pooled") else metrics["categories"][name]
        for column in NUMBERS:
            assert 0 <= row[column] <= 1
            assert row[column] == pytest.approx(other[column], abs=1e-6)
    assert metrics["error_bounds"].keys() == {"bottle", "cable", "pooled"}
    for name, bounds in metrics["error_bounds"].items():
        assert list(bounds) == NUMBERS[3:]
        assert 0 <= min(bounds.values()) <= max(bounds.values()) <= 1e-4
        assert metrics["pixel_auroc_error_bound"][name] == bounds["pixel_auroc"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["hidden_dim"] == 32
    assert config["output_dir"] == str(folder)
    for category in ("bottle", "cable"):
        panel = np.asarray(Image.open(folder / "heatmaps" / f"{category}.png"))
        assert panel.shape[1] > 4 * 64
        assert panel.std() > 10
    assert not [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def test_the_terminal_starts_with_counts_and_ends_in_table_and_folder(trained):
    folder, done = trained
    lines = done.stdout.strip().splitlines()
    assert str(folder) in lines[-1]
    for word in ("test defective", "scratch 2", "pooled", "aupro"):
        assert word in done.stdout
    assert "RANDOM WEIGHTS" in done.stderr
    assert "ETA" in done.stderr or "<" in done.stderr  # tqdm's elapsed<remaining


def test_the_checkpoint_is_plain_and_holds_the_backbone(trained):
    checkpoint = torch.load(trained[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["config"]["model"]["neighbor_size"] == 3
    assert any(name.startswith("backbone.") for name in checkpoint["state_dict"])
    assert any(name.startswith("network.") for name in checkpoint["state_dict"])


def test_evaluate_repeats_the_numbers_and_its_maps_hold_them_all(trained, uniad, tree, tmp_path):
    folder, _ = trained
    ckpt = folder / "checkpoints" / "last.ckpt"
    status, out, err = uniad(
        "evaluate", f"ckpt_path={ckpt}", f"data.root={tree}", "save_maps=true", f"output_dir={tmp_path}/again"
    )
    assert status == 0, err
    again = table(tmp_path / "again")
    assert again.keys() == table(folder).keys()
    for name, row in table(folder).items():
        assert again[name] == pytest.approx(row, abs=1e-6)

    maps = [np.load(path) for path in sorted((tmp_path / "again" / "maps").glob("*.npz"), key=lambda p: int(p.stem))]
    assert len(maps) == 10
    assert maps[0]["map"].dtype == np.float32
    assert maps[0]["mask"].dtype == bool
    assert maps[0]["map"].shape == maps[0]["mask"].shape == (64, 64)
    for name, row in again.items():
        if name == "mean":
            continue
        chosen = [m for m in maps if name in (str(m["category"]), "pooled")]
        labels, scores = [int(m["label"]) for m in chosen], [float(m["score"]) for m in chosen]
        pixels = np.concatenate([m["map"].ravel() for m in chosen])
        truth = np.concatenate([m["mask"].ravel() for m in chosen])
        assert row["images"] == len(chosen)
        check_binary(row, "image", labels, scores)
        check_binary(row, "pixel", truth, pixels)
        assert row["aupro"] == pytest.approx(aupro(chosen), abs=1e-4)
        assert all(Path(str(m["path"])).is_file() for m in chosen)


def check_binary(row, prefix, truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert row[f"{prefix}_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    assert row[f"{prefix}_ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-4)
    assert row[f"{prefix}_f1max"] == pytest.approx(f1.max(), abs=1e-4)


def aupro(maps):
    """Brute force over every score as a threshold; each mask of the fabricated tree is one region."""
    scores = np.concatenate([m["map"].ravel() for m in maps])
    order = np.argsort(-scores, kind="stable")
    good = np.concatenate([~m["mask"].ravel() for m in maps])[order]
    weights = np.concatenate([m["mask"].ravel() / max(m["mask"].sum(), 1) for m in maps])[order]
    last = np.append(np.diff(scores[order]) != 0, True)
    x = np.append(0, np.cumsum(good)[last] / good.sum())
    y = np.append(0, np.cumsum(weights)[last] / sum(m["mask"].any() for m in maps))
    grid = np.append(x[x < 0.3], 0.3)
    y = np.interp(grid, x, y)
    return float(((y[1:] + y[:-1]) * np.diff(grid)).sum() / 2 / 0.3)


def test_a_run_repeats_bit_for_bit(trained, uniad, tree, tmp_path):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/twin")
    assert status == 0, err
    assert_same_weights(trained[0], tmp_path / "twin")
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/other", "seed=1")
    assert status == 0, err
    assert (
        weights(tmp_path / "other")["network.output_proj.weight"]
        .ne(weights(trained[0])["network.output_proj.weight"])
        .any()
    )


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [["data.cache=disk"], ["data.sampling=balanced", "data.augmentation.flip=0.5", "data.augmentation.rotate=10"]],
    ids=["cached", "augmented"],
)
def test_killed_in_the_middle_of_an_epoch_and_resumed_ends_with_the_same_weights(tree, tmp_path, options):
    # 18 images, batch 4: 4 steps an epoch; the checkpoint after step 130 is inside one, the next is the last, at 240.
    settings = [
        *SMALL, f"data.root={tree}", "trainer.max_epochs=60", "callbacks.checkpoint.every_n_epochs=null",
        "standardize=true", "schedule=cosine",  # both keep state in the checkpoint
        "callbacks.checkpoint.every_n_train_steps=130", "callbacks.checkpoint.save_on_train_epoch_end=false",
        *options,
    ]  # fmt: skip
    straight = subprocess.run(
        [UNIAD, "train", *settings, f"output_dir={tmp_path}/straight"], capture_output=True, text=True, check=False
    )
    assert straight.returncode == 0, straight.stderr

    last = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    process = subprocess.Popen(
        [UNIAD, "train", *settings, f"output_dir={tmp_path}/killed"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while not last.is_file():
        assert process.poll() is None, process.stdout.read().decode()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    step = torch.load(last, weights_only=True)["global_step"]
    assert step == 130
    resumed = subprocess.run(
        [UNIAD, "train", *settings, f"output_dir={tmp_path}/killed", f"ckpt_path={last}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert torch.load(last, weights_only=True)["global_step"] == 240
    assert_same_weights(tmp_path / "straight", tmp_path / "killed")
    assert (tmp_path / "straight" / "results.csv").read_text() == (tmp_path / "killed" / "results.csv").read_text()


@pytest.mark.slow
def test_an_interrupt_ends_with_its_own_status(tree, tmp_path):
    process = subprocess.Popen(
        [UNIAD, "train", *SMALL, "trainer.max_epochs=500", f"data.root={tree}", f"output_dir={tmp_path}/run"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background shells ignore it
    )  # fmt: skip
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "uniad: interrupted" in err


@pytest.mark.slow
def test_a_sweep_ends_in_one_table_over_its_runs(uniad, tree, tmp_path):
    status, out, err = uniad(
        "train", *SMALL, "trainer.max_epochs=1", f"data.root={tree}", f"output_dir={tmp_path}", "sweep=jitter_scale"
    )
    assert status == 0, err
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row, scale in zip(rows, (5, 10, 20, 30), strict=True):
        assert row["run"] == f"model.jitter.scale-{scale}"
        folder = tmp_path / row["run"]
        assert float(row["pixel_auroc"]) == pytest.approx(table(folder)["mean"]["pixel_auroc"], abs=1e-6)
        assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["jitter"]["scale"] == scale
    assert len({weights(tmp_path / row["run"])["network.output_proj.bias"][0].item() for row in rows}) == 4
    assert "sweep" in out.strip().splitlines()[-1] or rows[0]["run"] in out


@pytest.mark.slow
def test_a_failed_job_does_not_stop_a_sweep_and_is_named(uniad, tree, tmp_path):
    status, out, err = uniad(
        "train", *SMALL, "trainer.max_epochs=1", f"data.root={tree}", f"output_dir={tmp_path}", "-m",
        "model.neighbor_size=4,3",
    )  # fmt: skip
    assert status == 1
    assert "1 of 2 runs failed" in err
    assert "model.neighbor_size-4" in err.strip().splitlines()[-1]
    assert len(list(tmp_path.glob("*/metrics.json"))) == 1


def test_validation_and_the_best_epoch_on_the_test_split(uniad, tree, tmp_path):
    status, out, err = uniad(
        "train",
        *SMALL,
        f"data.root={tree}",
        f"output_dir={tmp_path}/run",
        "validate_every=1",
        "callbacks=best_on_test",
        "trainer.log_every_n_steps=1",
    )
    assert status == 0, err
    assert "best on the test split" in err
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["checkpoint"] == "best_on_test"
    assert (tmp_path / "run" / "checkpoints" / "best_on_test.ckpt").is_file()
    with next((tmp_path / "run" / "logs").rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(row["mean/pixel_auroc"]) for row in rows) >= 2
    assert any(row["train/loss_step"] for row in rows)


def test_one_category_alone_is_the_separate_case(uniad, tree, tmp_path):
    status, out, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "data.categories=[cable]"
    )
    assert status == 0, err
    rows = table(tmp_path / "run")
    assert list(rows) == ["cable", "mean", "pooled"]
    assert rows["cable"] == rows["pooled"]


@pytest.mark.slow
def test_rectangular_images_grids_and_windows(uniad, tree, tmp_path):
    status, out, err = uniad(
        "train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "data.image_size=[64,96]",
        "model.grid=[4,6]", "model.neighbor_size=[1,3]", "model.masked=[true,false,true]", "data.num_workers=2",
    )  # fmt: skip
    assert status == 0, err


@pytest.mark.slow
@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_scripts_are_the_same_commands(script):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{script}.py", "modle.x=1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "modle.x: no such key" in done.stderr


def test_help_answers_with_an_example_for_each_command():
    start = time.perf_counter()
    done = subprocess.run([UNIAD, "--help"], capture_output=True, text=True, check=True)
    print(f"uniad --help: {time.perf_counter() - start:.2f} s")
    for example in ("uniad train experiment=", "uniad evaluate ckpt_path="):
        assert example in done.stdout
    heavy = (
        "import sys, uniad_lightning.command_line.cli; "
        "print([m for m in ('torch', 'hydra', 'lightning') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout == "[]\n"
