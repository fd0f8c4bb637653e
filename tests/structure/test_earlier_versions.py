"""What version 0.1.0 has written goes on to work: checkpoints, exported files, run folders, predictions, caches.

`earlier/version_0.1.0.tar.xz` was written by that version (commit 79fcab7) in an empty folder /line, of two of its
synthetic products, with the settings of `support.settings.SMALL` and its small backbone:

    uniad train data=mvtec data.root=parts data.held_out=0.4 SETTINGS output_dir=run
    uniad calibrate ckpt_path=run/checkpoints/last.ckpt
    uniad export ckpt_path=run/checkpoints/last.ckpt
    uniad predict ckpt_path=run/checkpoints/last.ckpt input=parts/gear/test output_dir=predictions
"""

import csv
import json
import tarfile
from pathlib import Path

import pytest

from support.settings import SMALL
from uniad_lightning.inspection.detector import Detector

ARCHIVE = Path(__file__).parent / "earlier" / "version_0.1.0.tar.xz"


@pytest.fixture
def line(tmp_path, monkeypatch):
    """The folder as that version left it, the current folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    for path in [tmp_path / "run/config.yaml", *tmp_path.glob("predictions/*.[jy]*")]:
        path.write_text(path.read_text().replace("/line", str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["run", "run/checkpoints/last.ckpt", "run/checkpoints/last.onnx"])
def test_scores_and_decisions_are_those_of_then(line, name):
    detector = Detector.load(name, device="cpu")
    rows = written(line / "predictions/predictions.csv")
    assert {row["decision"] for row in rows} == {"good", "defective"}
    for row in rows:
        result = detector.predict(line / "parts/gear/test" / row["path"])
        assert result.score == pytest.approx(float(row["score"]), rel=1e-5)
        assert result.normalised == pytest.approx(float(row["normalised_score"]), abs=1e-4)
        assert result.decision == row["decision"]


def test_a_run_is_evaluated_and_calibrated_again(line, uniad):
    assert uniad("evaluate", "ckpt_path=run", "output_dir=again", "data.num_workers=0")[0] == 0
    then, now = (json.loads((line / run / "metrics.json").read_text()) for run in ("run", "again"))
    assert then["mean"].keys() <= now["mean"].keys()
    for name, value in then["mean"].items():
        assert now["mean"][name] == pytest.approx(value, abs=1e-4), name
    assert uniad("calibrate", "ckpt_path=run", "output_dir=calibration")[0] == 0
    assert Detector.load("run", device="cpu").calibration.by_category


def test_a_training_is_known_to_be_finished_and_begins_another(line, uniad):
    status, _, err = uniad("train", "resume=run")
    assert (status, "resume=run: that training is finished" in err) == (2, True)
    began = "init_from=run/checkpoints/last.ckpt"
    assert uniad("train", "data=mvtec", "data.root=parts", *SMALL, began, "output_dir=further")[0] == 0
    assert (line / "further/metrics.json").is_file()


def test_predictions_and_their_cache_go_on(line, uniad, command, monkeypatch):
    settings = json.loads((line / "predictions/predictions.json").read_text())
    settings["ckpt_changed"] = (line / "run/checkpoints/last.ckpt").stat().st_mtime_ns  # the archive has seconds alone
    (line / "predictions/predictions.json").write_text(json.dumps(settings))
    before = written(line / "predictions/predictions.csv")
    words = ("predict", "ckpt_path=run/checkpoints/last.ckpt", "input=parts/gear/test", "output_dir=predictions")
    assert uniad(*words, "device=cpu", "resume=true")[0] == 0
    after = written(line / "predictions/predictions.csv")
    assert [row["score"] for row in after[: len(before)]] == [row["score"] for row in before]
    monkeypatch.setenv("UNIAD_CACHE", str(line / "cache"))
    status, out, _ = command("cache")
    assert status == 0
    assert "1 settings" in out
