"""`logger=wandb` in offline mode: what it wrote is read back in W&B's own record format."""

import csv
import json
import os
import subprocess
import time

import lightning as L
import numpy as np
import pytest
import wandb
from PIL import Image
from sklearn.metrics import auc

from support.settings import SMALL, UNIAD
from support.wandb_files import read
from uniad_lightning.tracking.boards import WandbBoard

OFFLINE = ["logger=wandb", "logger.wandb.offline=true", "trainer.log_every_n_steps=1"]


@pytest.fixture(scope="module", autouse=True)
def _own_folders(tmp_path_factory):
    """W&B keeps copies of artifacts in the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in ("DATA", "CACHE", "CONFIG"):
            patch.setenv(f"WANDB_{kind}_DIR", str(tmp_path_factory.mktemp(kind)))
        yield


@pytest.fixture(scope="module")
def folder(tree, tmp_path_factory):
    """A run of two epochs of four steps, each with a validation, that keeps the best epoch."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("wandb") / "night_shift"
    words = [*SMALL, *OFFLINE, f"data.root={tree}", f"output_dir={folder}", "validate_every=1", "seed=3"]
    assert run_command("train", [*words, "callbacks=best_on_test"]) == 0
    return folder


@pytest.fixture(scope="module")
def written(folder):
    return read(folder)


def test_curves_of_the_training(written):
    steps = list(range(8))
    assert [step for step, _ in written.history["train/loss_step"]] == steps
    assert all(value > 0 for _, value in written.history["train/loss_step"])
    assert len(written.history["train/loss_epoch"]) == 2
    # 0.8 of 8 steps with the first learning rate.
    assert [value for _, value in written.history["train/lr"]] == pytest.approx([1e-3] * 6 + [1e-4] * 2)
    assert [step for step, _ in written.history["train/images_per_second"]] == steps
    assert all(value > 0 for _, value in written.history["train/images_per_second"])
    assert "train/gpu_memory_gib" not in written.history  # on a CPU


def test_metrics_as_history_and_last_of_all_as_summary(folder, written):
    final = json.loads((folder / "metrics.json").read_text())
    found = {f"{row}/{metric}": value for row in ("mean", "pooled") for metric, value in final[row].items()}
    found |= {f"{m}/{category}": value for category, row in final["categories"].items() for m, value in row.items()}
    found = {key: value for key, value in found.items() if "images" not in key}
    assert len(found) == 7 * 4
    for key, value in found.items():
        assert [step for step, _ in written.history[key]] == [3, 7, 8], key
        assert written.summary[key] == pytest.approx(value, abs=1e-6), key


def test_config_is_searched_by_flat_keys(written):
    assert written.config["model.neighbor_size"] == 3
    assert written.config["data.batch_size"] == 4
    assert written.config["optimizer.lr"] == 1e-3
    assert written.config["seed"] == 3
    assert not any(isinstance(value, dict) for key, value in written.config.items() if key != "_wandb")


def test_name_group_and_tags_of_a_single_run(written):
    assert written.run.display_name == "night_shift"
    assert (written.run.run_group, written.run.job_type) == ("train", "train")
    assert list(written.run.tags) == ["train", "seed-3"]
    assert written.exit_code == 0


def test_results_as_table(folder, written):
    _, path = written.history["results/path"][-1]
    table = json.loads((written.files / path).read_text())
    with (folder / "results.csv").open() as file:
        header, *rows = csv.reader(file)
    assert table["columns"] == header
    assert [row[0] for row in table["data"]] == [row[0] for row in rows] == ["bottle", "cable", "mean", "pooled"]
    assert np.array(table["data"])[:, 1:].astype(float) == pytest.approx(np.array(rows)[:, 1:].astype(float), abs=1e-6)


def test_the_ends_of_intervals_are_in_the_summary(folder, written):
    intervals = json.loads((folder / "metrics.json").read_text())["intervals"]
    with (folder / "results.csv").open() as file:
        rows = {row["category"]: row for row in csv.DictReader(file)}
    assert {"pixel_auroc", "pixel_ap", "pixel_f1max", "aupro"} <= intervals["mean"].keys()
    for row, part in intervals.items():
        for metric, ends in part.items():
            name = f"{row}/{metric}" if row in ("mean", "pooled") else f"{metric}/{row}"
            assert ends["low"] < ends["high"]
            for end, value in ends.items():
                assert written.summary[f"{name}_{end}"] == pytest.approx(value)
                assert float(rows[row][f"{metric}_{end}"]) == pytest.approx(value, abs=1e-6)


def areas(written, kind):
    """The area under each line of a ROC chart."""
    ((_, path),) = written.history[f"roc/{kind}_chart_table/path"]
    table, lines = json.loads((written.files / path).read_text()), {}
    for values in table["data"]:
        point = dict(zip(table["columns"], values, strict=True))
        lines.setdefault(point["lineKey"], []).append((point["step"], point["lineVal"]))
    return {key: auc(*np.array(line).T) for key, line in lines.items()}


def aurocs(folder, kind):
    final = json.loads((folder / "metrics.json").read_text())
    rows = {**final["categories"], "pooled": final["pooled"]}
    return {category: row[f"{kind}_auroc"] for category, row in rows.items()}


@pytest.mark.parametrize("kind", ["image", "pixel"])
def test_roc_as_picture_of_each_evaluation_and_as_chart(folder, written, kind):
    assert [step for step, _ in written.history[f"roc/{kind}/path"]] == [3, 7, 8]
    assert areas(written, kind) == pytest.approx(aurocs(folder, kind), abs=5e-3)


def test_heatmaps_show_the_same_images_at_each_evaluation(written):
    for category in ("bottle", "cable"):
        shown = written.history[f"heatmaps/{category}/path"]
        assert [step for step, _ in shown] == [3, 7, 8]
        first, second, _ = (np.asarray(Image.open(written.files / path)).astype(int) for _, path in shown)
        width = first.shape[1] // 4
        # Pictures are compressed with loss; the columns are image, mask, map and overlay.
        assert abs(first[:, : 2 * width - 8] - second[:, : 2 * width - 8]).mean() < 0.5
        assert abs(first[:, 2 * width + 8 :] - second[:, 2 * width + 8 :]).mean() > 2


def test_checkpoints_and_configuration_as_artifacts(folder, written):
    final = json.loads((folder / "metrics.json").read_text())
    best, last = (artifact for artifact in written.artifacts if artifact.type == "model")
    assert best.name == last.name == f"model-{written.run.run_id}"
    assert "best_on_test" in best.aliases
    assert set(last.aliases) == {"last", "latest"}  # the newest version is the latest
    for artifact, checkpoint in ((best, "best_on_test.ckpt"), (last, "last.ckpt")):
        kept = {entry.path: entry.size for entry in artifact.manifest.contents}
        files = [folder / "checkpoints" / checkpoint, folder / "config.yaml"]
        assert kept == {file.name: file.stat().st_size for file in files}
    assert json.loads(best.metadata)["mean/image_auroc"] == pytest.approx(final["mean"]["image_auroc"])
    assert not last.metadata  # it was not evaluated


class Crash(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("the power failed")


@pytest.mark.slow
def test_a_resumed_run_is_the_same_and_one_that_writes_over_it_another(uniad, tree, tmp_path):
    words = [
        *SMALL,
        *OFFLINE,
        f"data.root={tree}",
        f"output_dir={tmp_path}/run",
        "logger.wandb.upload_checkpoint=false",
    ]
    status, _, err = uniad("train", *words, "+callbacks.crash._target_=test_wandb.Crash")
    assert status == 1
    assert "the power failed" in err
    status, _, err = uniad("train", *words, f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt")
    assert status == 0, err
    broken, resumed = read(tmp_path / "run", 0), read(tmp_path / "run", 1)
    assert (broken.exit_code, resumed.exit_code) == (1, 0)
    assert broken.run.run_id == resumed.run.run_id
    steps = [[step for step, _ in part.history["train/loss_step"]] for part in (broken, resumed)]
    assert steps == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert not [artifact for artifact in resumed.artifacts if artifact.type == "model"]
    time.sleep(1)  # W&B names folders by the second
    status, _, err = uniad("train", *words, "overwrite=true", "trainer=smoke", "trainer.accelerator=cpu")
    assert status == 0, err
    assert read(tmp_path / "run", 2).run.run_id != resumed.run.run_id


@pytest.mark.slow
def test_runs_of_a_sweep_are_a_group(uniad, tree, tmp_path):
    words = [*SMALL, *OFFLINE, f"data.root={tree}", f"output_dir={tmp_path}/seeds", "trainer.max_epochs=1"]
    status, _, err = uniad("train", *words, "seed=0,1", "-m")
    assert status == 0, err
    runs = [read(tmp_path / "seeds" / f"seed-{seed}") for seed in (0, 1)]
    assert [run.run.run_group for run in runs] == ["seeds", "seeds"]
    assert [run.run.display_name for run in runs] == ["seed-0", "seed-1"]
    assert [list(run.run.tags) for run in runs] == [["train", "seed-0"], ["train", "seed-1"]]
    assert len({run.run.run_id for run in runs}) == 2


class Breaks(WandbBoard):
    def log_metrics(self, metrics, step=None):
        if step == 3:
            raise OSError("no space left on device")
        super().log_metrics(metrics, step)


def test_a_run_that_fails_is_closed_and_the_training_goes_on(uniad, tree, tmp_path):
    words = [*SMALL, *OFFLINE, f"data.root={tree}", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *words, "logger.wandb._target_=test_wandb.Breaks")
    assert status == 0
    assert [line for line in err.splitlines() if "failed and is silent" in line] == [
        "uniad: warning: Breaks failed and is silent from here on: no space left on device"
    ]
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert wandb.run is None
    written = read(tmp_path / "run")
    assert [step for step, _ in written.history["train/loss_step"]] == [0, 1, 2]


def the_warning(err):
    (line,) = [line for line in err.splitlines() if line.startswith("uniad: warning: WandbBoard")]
    return line


def test_without_an_account_the_training_goes_on(uniad, tree, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=wandb")
    assert status == 0, err
    assert "No API key configured" in the_warning(err)
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.slow
def test_without_a_network_the_training_goes_on(tree, tmp_path):
    words = [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=wandb", "logger.wandb.init_timeout=2"]
    process = subprocess.run(
        [UNIAD, "train", *words, "trainer.max_epochs=1"],
        env={**os.environ, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "connection refused" in the_warning(process.stderr)
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.slow
def test_one_of_several_processes_writes_what_all_have_seen(tree, tmp_path):
    folder = tmp_path / "run"
    words = [*SMALL, *OFFLINE, f"data.root={tree}", f"output_dir={folder}", "validate_every=1", "trainer.max_epochs=1"]
    process = subprocess.run(
        [UNIAD, "train", *words, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert len(list(folder.rglob("*.wandb"))) == 1
    written = read(folder)
    assert [step for step, _ in written.history["heatmaps/bottle/path"]] == [3, 4]
    for kind in ("image", "pixel"):
        assert areas(written, kind) == pytest.approx(aurocs(folder, kind), abs=5e-3)
