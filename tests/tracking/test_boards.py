"""What TensorBoard and CSV show, the ROC curves, and loggers that fail."""

import csv
import json
import sys

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import auc, roc_curve
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from support.settings import SMALL
from uniad_lightning.metrics.anomaly_metrics import AnomalyMetrics, Row
from uniad_lightning.metrics.histogram import by_score
from uniad_lightning.metrics.roc import POINTS, draw_roc, image_curves, pixel_curves, trace
from uniad_lightning.settings import flat
from uniad_lightning.tracking.loggers import FaultTolerantLogger, defined

MACHINES = {"train/images_per_second"}  # differs from run to run


@pytest.fixture(scope="module")
def runs(tree, tmp_path_factory):
    """The same training with both loggers: two epochs of four steps, a validation after each."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("dashboard")
    words = [*SMALL, f"data.root={tree}", "validate_every=1", "trainer.log_every_n_steps=1"]
    for logger in ("csv", "tensorboard"):
        assert run_command("train", [*words, f"logger={logger}", f"output_dir={folder}/{logger}"]) == 0
    return folder


@pytest.fixture(scope="module")
def events(runs):
    accumulator = EventAccumulator(str(runs / "tensorboard/tensorboard/version_0"))
    accumulator.Reload()
    return accumulator


def curves(path):
    """name -> [(step, value)] of a CSV file."""
    found = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    found.setdefault(name, []).append((int(row["step"]), float(value)))
    return found


def test_csv_holds_every_curve_also_those_that_begin_later(runs):
    found, final = curves(runs / "csv/logs/version_0/metrics.csv"), json.loads((runs / "csv/metrics.json").read_text())
    assert [step for step, _ in found["train/loss_step"]] == list(range(8))
    assert [value for _, value in found["train/lr"]] == pytest.approx([1e-3] * 6 + [1e-4] * 2)
    assert all(value > 0 for _, value in found["train/images_per_second"])
    for category, row in final["categories"].items():
        for metric in Row._fields[1:]:
            assert [step for step, _ in found[f"{metric}/{category}"]] == [3, 7, 8]
            assert found[f"{metric}/{category}"][-1][1] == pytest.approx(row[metric])


def test_tensorboard_shows_the_same_curves_as_csv(runs, events):
    expected = curves(runs / "csv/logs/version_0/metrics.csv")
    assert set(events.Tags()["scalars"]) - {"epoch"} == expected.keys()
    for name in expected.keys() - MACHINES:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert dict(found) == pytest.approx(dict(expected[name]), rel=1e-5), name


def test_tensorboard_shows_heatmaps_and_roc_curves_of_each_evaluation(events):
    for name in ("heatmaps/bottle", "heatmaps/cable", "roc/image", "roc/pixel"):
        images = events.Images(name)
        assert [image.step for image in images] == [3, 7, 8], name
        assert images[0].encoded_image_string != images[1].encoded_image_string, name


def test_tensorboard_lists_settings_beside_results(runs, events):
    from tensorboard.plugins.hparams import plugin_data_pb2

    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    settings = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["model.neighbor_size"].number_value == 3
    assert settings["optimizer.lr"].number_value == 1e-3
    experiment = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    listed = plugin_data_pb2.HParamsPluginData.FromString(experiment).experiment.metric_infos
    assert "mean/image_auroc" in {info.name.tag for info in listed}


def test_without_the_package_tensorboard_nothing_starts(uniad, tree, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # what an import of a missing package finds
    words = [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "logger=tensorboard"]
    status, _, err = uniad("train", *words)
    assert status == 2
    assert err.splitlines()[-1] == "uniad: logger=tensorboard: needs the package tensorboard; pip install tensorboard"
    assert not (tmp_path / "run" / "checkpoints").exists()


class Breaks(CSVLogger):
    def log_metrics(self, metrics, step=None):
        if step == 3:
            raise OSError("no space left on device")
        super().log_metrics(metrics, step)


@pytest.mark.parametrize("breaking", ["logger.csv._target_=test_boards.Breaks", "logger.csv.name=.in_the_way"])
def test_a_logger_that_fails_costs_its_curves_alone(uniad, tree, tmp_path, breaking):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".in_the_way").touch()  # a file where it needs a folder
    words = [*SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "trainer.log_every_n_steps=1", breaking]
    status, _, err = uniad("train", *words)
    assert status == 0, err
    assert err.count("failed and is silent from here on") == 1
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()


def test_an_interrupt_is_no_failure_of_a_logger(tmp_path):
    class Interrupted(CSVLogger):
        def log_metrics(self, metrics, step=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FaultTolerantLogger(Interrupted(tmp_path)).log_metrics({"a": 1.0}, 0)


def fabricate(offset=0.0):
    """Three categories of 40 images, `screw` all defective, and pixels that overlap, their scores from `offset` on."""
    torch.manual_seed(0)
    names, count = ("bottle", "cable", "screw"), 40
    metrics = AnomalyMetrics(categories=names, num_images=count * len(names), foreign={"screw"})
    for category in range(len(names)):
        labels = torch.arange(count) % 2 if category < 2 else torch.ones(count, dtype=torch.int64)
        masks = torch.zeros(count, 16, 16, dtype=torch.bool)
        masks[labels == 1, 4:8, 4:8] = True
        maps = offset + torch.rand(count, 16, 16) + 0.3 * masks
        metrics.update(
            maps=maps, scores=maps.flatten(1).mean(1) + 0.01 * labels * torch.rand(count), masks=masks,
            has_mask=torch.ones(count, dtype=torch.bool), labels=labels, categories=torch.full((count,), category),
            indices=torch.arange(count) + count * category,
        )  # fmt: skip
    return metrics


@pytest.fixture(scope="module")
def metrics():
    return fabricate()


@pytest.mark.parametrize(("of", "field"), [(image_curves, "image_auroc"), (pixel_curves, "pixel_auroc")])
def test_area_under_each_curve_is_the_reported_auroc(metrics, of, field):
    evaluation = metrics.compute()
    rows = {**evaluation.categories, "pooled": evaluation.pooled}
    found = {name: auc(curve.false_positives, curve.true_positives) for name, curve in of(metrics).items()}
    assert found == pytest.approx({name: getattr(row, field) for name, row in rows.items()}, abs=1e-3)
    assert 0.5 < found["pooled"] < 0.95


def test_curves_of_pixels_are_those_of_the_finer_bins():
    metrics = fabricate(offset=1000.0)  # within a bin or two of the first
    expected = metrics.compute().pooled.pixel_auroc
    curve = pixel_curves(metrics)["pooled"]
    assert auc(curve.false_positives, curve.true_positives) == pytest.approx(expected, abs=1e-3)
    assert expected < 0.95


def test_curve_of_few_scores_is_that_of_scikit_learn():
    torch.manual_seed(1)
    labels = torch.randint(2, (60,))
    scores = (torch.rand(60).double() + 0.3 * labels).round(decimals=1)  # with ties
    x, y, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = trace(*by_score(scores, labels))
    assert curve.false_positives == pytest.approx(x)
    assert curve.true_positives == pytest.approx(y)


def test_long_curve_keeps_its_ends_and_its_shape():
    torch.manual_seed(2)
    labels = torch.randint(2, (20_000,))
    scores = torch.randn(20_000).double() + labels
    x, y, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = trace(*by_score(scores, labels))
    assert POINTS / 2 < len(curve.false_positives) <= POINTS
    ends = [(curve.false_positives[i], curve.true_positives[i]) for i in (0, -1)]
    assert ends == [(0, 0), (1, 1)]
    assert np.interp(x, curve.false_positives, curve.true_positives) == pytest.approx(y, abs=2 / POINTS)


def test_a_class_alone_has_no_curve():
    assert trace(torch.tensor([1, 2]), torch.tensor([0, 0])) is None
    assert trace(torch.tensor([0, 0]), torch.tensor([1, 2])) is None


def test_picture_of_curves_shows_each(metrics):
    curves = image_curves(metrics)
    aurocs = dict.fromkeys(curves, 0.5)
    whole = np.asarray(draw_roc(curves, aurocs, title="roc"))
    fewer = np.asarray(draw_roc({name: curves[name] for name in ("bottle", "pooled")}, aurocs, title="roc"))
    assert whole.shape[2] == 3
    assert (whole[:, :560] != fewer[:, :560]).any()


def test_what_is_undefined_is_not_logged():
    assert defined(Row(5, 0.5, float("nan"), 0.25, *[float("nan")] * 4)) == {"image_auroc": 0.5, "image_f1max": 0.25}


def test_settings_are_flat():
    assert flat({"a": 1, "b": {"c": [1, 2], "d": {"e": None}}}) == {"a": 1, "b.c": [1, 2], "b.d.e": None}
