"""`logger=mlflow` on a local store, beside others: what it wrote is read back by MLflow itself."""

import csv
import json
import shutil
import sys

import lightning as L
import pytest
from mlflow import MlflowClient
from omegaconf import OmegaConf
from PIL import Image
from sklearn.metrics import auc
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from support.settings import QUICK, SMALL
from uniad_lightning.errors import InputError
from uniad_lightning.tracking.mlflow_board import DEFAULT_STORE, allowed
from uniad_lightning.training.loggers import build_loggers, by_name


@pytest.fixture(scope="module", autouse=True)
def _here(tmp_path_factory):
    """A working folder, in which MLflow keeps its store; it leaves its address in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        patch.setenv("MLFLOW_TRACKING_URI", "")
        yield


class Run:
    """A run as MLflow has it."""

    def __init__(self, folder, store=DEFAULT_STORE):
        self.client = MlflowClient(store)
        self.id = (folder / "mlflow" / "run_id").read_text().strip()
        self.data, self.info = self.client.get_run(self.id).data, self.client.get_run(self.id).info

    def history(self, name):
        return sorted((point.step, point.value) for point in self.client.get_metric_history(self.id, name))

    def file(self, name, folder):
        return self.client.download_artifacts(self.id, name, str(folder))

    def files(self, below=""):
        return [entry.path for entry in self.client.list_artifacts(self.id, below)]


@pytest.fixture(scope="module")
def folder(tree, tmp_path_factory):
    """Two epochs of four steps, each with a validation, logged by three at once."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("mlflow") / "night_shift"
    words = [*SMALL, f"data.root={tree}", f"output_dir={folder}", "validate_every=1", "trainer.log_every_n_steps=1"]
    assert run_command("train", [*words, "logger=[mlflow,csv,tensorboard]", "seed=3"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return Run(folder)


@pytest.fixture(scope="module")
def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_curves_are_those_of_the_csv_logger_beside_it(folder, run):
    expected = {}
    with (folder / "logs/version_0/metrics.csv").open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    expected.setdefault(name, []).append((int(row["step"]), float(value)))
    assert len(expected["train/loss_step"]) == 8
    assert run.data.metrics.keys() - {"epoch"} == expected.keys()
    for name, points in expected.items():
        assert run.history(name) == [(step, pytest.approx(value)) for step, value in sorted(points)], name


def test_intervals_are_metrics_of_every_logger(folder, run, metrics):
    events = EventAccumulator(str(folder / "tensorboard/version_0"))
    events.Reload()
    assert metrics["intervals"]["mean"]
    for row, part in metrics["intervals"].items():
        for metric, ends in part.items():
            name = f"{row}/{metric}" if row in ("mean", "pooled") else f"{metric}/{row}"
            for end, value in ends.items():
                assert run.data.metrics[f"{name}_{end}"] == pytest.approx(value)
                assert events.Scalars(f"{name}_{end}")[-1].value == pytest.approx(value, rel=1e-5)


def test_tensorboard_has_the_table_too(folder, metrics):
    events = EventAccumulator(str(folder / "tensorboard/version_0"))
    events.Reload()
    head, _, *lines = events.Tensors("results/text_summary")[-1].tensor_proto.string_val[0].decode().splitlines()
    names = [name.strip() for name in head.strip("|").split("|")]
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.strip("|").split("|")] for line in lines}
    assert cells.keys() == {*metrics["categories"], "mean", "pooled"}
    for name, row in metrics["categories"].items():
        assert float(cells[name][names.index("image_auroc")]) == pytest.approx(row["image_auroc"], abs=1e-4)


def test_settings_are_parameters(run):
    assert run.data.params["model.neighbor_size"] == "3"
    assert run.data.params["optimizer.lr"] == "0.001"
    assert run.data.params["data.batch_size"] == "4"


def test_name_tags_and_end_of_a_run(run):
    assert run.info.run_name == "night_shift"
    assert run.info.status == "FINISHED"
    assert {key: run.data.tags.get(key) for key in ("name", "seed", "group")} == {
        "name": "train", "seed": "3", "group": "train",
    }  # fmt: skip


def test_table_of_results_is_that_of_the_run_folder(folder, run, tmp_path):
    assert open(run.file("results.csv", tmp_path)).read() == (folder / "results.csv").read_text()  # noqa: SIM115


@pytest.mark.parametrize("kind", ["image", "pixel"])
def test_area_under_the_kept_roc_curves_is_the_reported_auroc(run, metrics, tmp_path, kind):
    points = {}
    with open(run.file(f"roc/{kind}.csv", tmp_path)) as file:
        for row in csv.DictReader(file):
            point = (float(row["false_positive_rate"]), float(row["true_positive_rate"]))
            points.setdefault(row["category"], []).append(point)
    rows = {**metrics["categories"], "pooled": metrics["pooled"]}
    found = {name: auc(*zip(*curve, strict=True)) for name, curve in points.items()}
    assert found == pytest.approx({name: row[f"{kind}_auroc"] for name, row in rows.items()}, abs=5e-3)


def test_pictures_of_each_evaluation(run, tmp_path):
    pictures = [name for name in run.files("images") if name.endswith(".png")]
    for name in ("heatmaps~bottle", "heatmaps~cable", "roc~image", "roc~pixel"):
        steps = sorted(int(part.split("+step+")[1].split("+")[0]) for part in pictures if f"/{name}+" in part)
        assert steps == [3, 7, 8], name
    with Image.open(run.file(pictures[0], tmp_path)) as picture:
        assert min(picture.size) > 32


def test_checkpoint_and_configuration_are_kept(folder, run, tmp_path):
    for name, own in (("checkpoints/last.ckpt", "checkpoints/last.ckpt"), ("config.yaml", "config.yaml")):
        with open(run.file(name, tmp_path), "rb") as file:
            assert file.read() == (folder / own).read_bytes()


class Crash(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("the power failed")


@pytest.mark.slow
def test_a_resumed_run_is_the_same_and_one_that_writes_over_it_another(uniad, tree, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIAD_TRUST", "test_mlflow")
    words = [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "trainer.log_every_n_steps=1"]
    words += ["logger=mlflow", "logger.mlflow.upload_checkpoint=false"]
    assert uniad("train", *words, "+callbacks.crash._target_=test_mlflow.Crash")[0] == 1
    broken = Run(tmp_path / "run")
    assert broken.info.status == "FAILED"
    status, _, err = uniad("train", f"resume={tmp_path}/run", "~callbacks.crash", "data.num_workers=1")
    assert status == 0, err
    assert "warning: MlflowBoard" not in err  # though settings are not those that MLflow knows
    resumed = Run(tmp_path / "run")
    assert (resumed.id, resumed.info.status) == (broken.id, "FINISHED")
    assert [step for step, _ in resumed.history("train/loss_step")] == list(range(8))
    assert "checkpoints" not in resumed.files()
    assert uniad("train", *words, "overwrite=true", "trainer.max_epochs=1")[0] == 0
    assert Run(tmp_path / "run").id != resumed.id


def test_a_run_killed_before_its_first_checkpoint_is_begun_again(uniad, tree, tmp_path):
    words = [*QUICK, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=mlflow"]
    crash = ["+callbacks.crash._target_=test_mlflow.AtOnce"]
    assert uniad("train", *words, *crash)[0] == 1
    assert (tmp_path / "run" / "mlflow" / "run_id").is_file()
    status, _, err = uniad("train", *words)
    assert status == 0, err


class AtOnce(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        raise RuntimeError("the power failed")


def test_a_store_that_cannot_be_opened_costs_its_curves_alone(uniad, tree, tmp_path):
    words = [*QUICK, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=[mlflow,csv,tensorboard]"]
    (tmp_path / "file").touch()
    status, _, err = uniad("train", *words, f"logger.mlflow.tracking_uri=sqlite:///{tmp_path}/file/mlflow.db")
    assert status == 0, err
    assert err.count("failed and is silent from here on") == 1
    assert "warning: MlflowBoard failed" in err
    assert "mean/image_auroc_low" in (tmp_path / "run/logs/version_0/metrics.csv").read_text()
    events = EventAccumulator(str(tmp_path / "run/tensorboard/version_0"))
    events.Reload()
    assert "heatmaps/bottle" in events.Tags()["images"]


def test_without_the_package_nothing_starts(uniad, tree, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # what an import of a missing package finds
    status, _, err = uniad("train", *QUICK, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=[csv,mlflow]")
    assert status == 2
    assert err.splitlines()[-1] == (
        "uniad: logger=mlflow: needs the package mlflow-skinny; pip install uniad-lightning[mlflow]"
    )
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_unknown_logger_in_a_list_is_one_line(uniad, tmp_path):
    status, _, err = uniad("train", "logger=[csv,mlfow]", f"output_dir={tmp_path}/run")
    assert status == 2
    assert err == (
        "uniad: logger=mlfow: no such option. Did you mean 'mlflow'? Options: csv, mlflow, none, tensorboard, wandb\n"
    )


def test_a_file_of_ones_own_says_where_it_belongs(uniad, tree, tmp_path):
    (tmp_path / "conf/logger").mkdir(parents=True)
    own = tmp_path / "conf/logger/own.yaml"
    own.write_text("save_dir: x\n")
    words = [*QUICK, f"data.root={tree}", f"output_dir={tmp_path}/run", f"--config-dir={tmp_path}/conf", "logger=own"]
    status, _, err = uniad("train", *words)
    assert status == 2
    assert "logger.save_dir: is 'x', expected a logger" in err
    own.write_text(f"# @package logger.own\n_target_: lightning.pytorch.loggers.CSVLogger\nsave_dir: {tmp_path}/own\n")
    status, _, err = uniad("train", *words)
    assert status == 0, err
    assert list((tmp_path / "own").rglob("metrics.csv"))


def test_a_run_of_an_earlier_release_has_one_logger_without_a_name(uniad, tree, tmp_path, folder):
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run/metrics.json").unlink()
    config = OmegaConf.load(tmp_path / "run/config.yaml")
    config.logger = config.logger.csv
    OmegaConf.save(config, tmp_path / "run/config.yaml")
    status, _, err = uniad("train", f"resume={tmp_path}/run")
    assert status == 0, err
    assert (tmp_path / "run/logs/version_1/metrics.csv").is_file()


def test_several_loggers_are_built_in_their_order():
    one = {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "."}
    cfg = OmegaConf.create({"name": "x", "output_dir": ".", "logger": {"b": one, "a": one, "none": None}})
    assert list(by_name(cfg.logger)) == ["b", "a"]
    assert len(build_loggers(cfg)) == 2
    with pytest.raises(InputError, match=r"^logger\.c: is 3, expected a logger"):
        by_name(OmegaConf.create({"c": 3}))


def test_names_that_mlflow_refuses_stay_apart():
    assert allowed("image_auroc/night shift-1.b") == "image_auroc/night shift-1.b"
    names = ["image_auroc/螺丝", "image_auroc/螺母", "image_auroc/a#1", "image_auroc/a@1"]
    found = {allowed(name) for name in names}
    assert len(found) == 4
    assert all(name.isascii() for name in found)
