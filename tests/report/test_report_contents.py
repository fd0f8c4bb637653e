"""What a page holds is what the run has written: scores, numbers, decisions, masks and maps; and where it ends up."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.reports import counts, data_of, picture, table_of
from uniad_lightning import Detector
from uniad_lightning.data.images.decoding import read_mask
from uniad_lightning.heatmap import Scale
from uniad_lightning.report.write import write_report


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_scores_and_decisions_are_those_of_the_evaluation(runs, evaluated):
    written, own = rows_of(runs / "evaluated" / "test_scores.csv"), table_of(evaluated)
    assert len(own) == 10
    for row, cells in zip(written, own, strict=True):
        assert [cells[name] for name in ("path", "category", "label")] == [
            row[name] for name in ("path", "category", "label")
        ]
        below = "unknown" if cells["familiar"] == "false" else "good"  # as uniad predict decides
        assert cells["decision"] == {"good": below, "defective": "defective"}[row["decision"]]
        assert f"{float(cells['score']):.9g}" == row["score"]
        assert cells["defect"] == row["path"].split("/")[-2]
    images = data_of(evaluated)["runs"][0]["images"]
    assert [image["score"] for image in images] == [float(cells["score"]) for cells in own]
    assert [image["label"] for image in images] == [int(cells["label"] == "defective") for cells in own]


def test_mistakes_are_those_of_the_evaluations_own_table(runs, evaluated):
    own = table_of(evaluated)
    for row in rows_of(runs / "evaluated" / "outcomes.csv"):
        of_it = [cells for cells in own if row["category"] in (cells["category"], "all")]
        found = [sum(cells["mistake"] == mistake for cells in of_it) for mistake in ("false alarm", "missed")]
        assert found == [int(row["false_alarms"]), int(row["misses"])]
        limits = {cells["category"]: float(cells["boundary"]) for cells in of_it}
        assert counts(of_it, limits.get) == tuple(found)


def test_numbers_are_those_of_the_metrics(runs, evaluated):
    metrics = json.loads((runs / "evaluated" / "metrics.json").read_text())
    expected = {**metrics["categories"], "mean": metrics["mean"], "pooled": metrics["pooled"]}
    found = {row["category"]: row for row in data_of(evaluated)["runs"][0]["numbers"]}
    assert found.keys() == expected.keys()
    names = {"auroc": "image_auroc", "ap": "image_ap", "f1max": "image_f1max"}
    for category, row in found.items():
        for name, column in {**names, "pixel_auroc": "pixel_auroc", "aupro": "aupro"}.items():
            assert row[name] == pytest.approx(expected[category][column], abs=1e-9)
        assert row["low"] <= row["auroc"] <= row["high"]


def test_intervals_are_those_of_the_evaluation(runs, evaluated):
    known = json.loads((runs / "evaluated/metrics.json").read_text())["intervals"]
    shown = {row["category"]: (row["low"], row["high"]) for row in data_of(evaluated)["runs"][0]["numbers"]}
    assert shown.keys() == known.keys()
    assert any("image_auroc" in ends for ends in known.values())
    for category, ends in known.items():  # the evaluation has none where scores do not overlap
        low, high = shown[category]
        expected = ends.get("image_auroc", {"low": low, "high": low})
        assert (low, high) == pytest.approx((expected["low"], expected["high"]), abs=1e-9)


def test_maps_are_the_detectors_and_masks_those_of_the_data(runs, evaluated):
    images, detector = data_of(evaluated)["runs"][0]["images"], Detector.load(runs / "run", device="cpu")
    bottles = [image for image in images if image["product"] == 0]
    inspected = [detector.predict(image["path"]) for image in bottles]
    maps = [np.asarray(Image.fromarray(found.scored_map).resize((64, 64), Image.Resampling.BOX)) for found in inspected]
    scale = Scale.of(maps, detector.calibration.of("bottle").pixel)
    assert len(maps) == 5
    for image, heat in zip(bottles, maps, strict=True):
        levels = np.clip((heat - scale.low) / (scale.high - scale.low) * 255, 0, 255)
        assert np.abs(picture(image["map"]).astype(float) - levels).max() <= 1.01
        assert np.abs(picture(image["thumb"]).astype(float) - np.asarray(Image.open(image["path"]))).mean() < 6
        if image["label"]:
            path = Path(image["path"].replace("/test/", "/ground_truth/").replace(".png", "_mask.png"))
            assert (picture(image["mask"]) == read_mask(path, image_path=image["path"], image_size=(80, 72))).all()
        else:
            assert "mask" not in image


def test_the_foot_names_the_commands_of_its_folder(runs, evaluated):
    assert f"uniad evaluate ckpt_path={runs}/run output_dir={runs}/evaluated trainer=cpu" in evaluated.read_text()


def test_predictions_have_no_labels_and_their_own_decisions(runs):
    page = runs / "predicted" / "report.html"  # of report=true
    (run,) = data_of(page)["runs"]
    journal = [json.loads(line) for line in (runs / "predicted" / "predictions.jsonl").read_text().splitlines()]
    assert not run["labelled"]
    assert run["numbers"] == []
    assert [(image["path"], image["score"]) for image in run["images"]] == [(r["path"], r["score"]) for r in journal]
    assert [row["decision"] for row in table_of(page)] == [row["decision"] for row in journal]
    assert all("map" in image and "thumb" in image for image in run["images"])


@pytest.mark.slow
def test_predictions_of_an_exported_file_are_shown_with_its_boundaries(runs, uniad, tree, tmp_path):
    pytest.importorskip("onnxruntime")
    status, _, err = uniad("export", f"ckpt_path={runs}/run", f"output={tmp_path}/a.onnx", f"output_dir={tmp_path}/e")
    assert status == 0, err
    words = [f"ckpt_path={tmp_path}/a.onnx", f"input={tree}/cable/test", f"output_dir={tmp_path}/out", "report=true"]
    status, _, err = uniad("predict", *words, "device=cpu")
    assert status == 0, err
    page = tmp_path / "out" / "report.html"
    first = data_of(runs / "predicted" / "report.html")["runs"][0]["boundary"]
    assert data_of(page)["runs"][0]["boundary"]["each"] == pytest.approx(first["each"])
    assert [row["decision"] for row in table_of(page)] == [
        row["decision"] for row in rows_of(tmp_path / "out" / "predictions.csv")
    ]
    assert all("map" in image for image in data_of(page)["runs"][0]["images"])


def test_a_calibration_says_what_was_found_in_an_image(runs, tmp_path):
    page = write_report([runs / "run" / "calibration"], out=tmp_path, device="cpu").page
    written = rows_of(runs / "run" / "calibration" / "test_scores.csv")
    assert [row["category_found"] for row in table_of(page)] == [row["category_found"] for row in written]


def test_a_training_is_shown_with_the_boundary_that_was_set_afterwards(runs, tmp_path):
    page = write_report([runs / "run"], out=tmp_path, device="cpu").page
    limits = json.loads((runs / "run" / "calibration" / "calibration.json").read_text())["categories"]
    assert data_of(page)["runs"][0]["boundary"]["each"] == [limits[name]["score"] for name in ("bottle", "cable")]


def test_several_runs_stand_in_one_page(runs, tmp_path):
    page = write_report([runs / "evaluated", runs / "predicted"], out=tmp_path, maps=False).page
    assert [run["name"] for run in data_of(page)["runs"]] == ["evaluated", "predicted"]
    assert {row["run"] for row in table_of(page)} == {"evaluated", "predicted"}
    assert not any("map" in image for run in data_of(page)["runs"] for image in run["images"])


def test_full_images_are_in_the_page_or_beside_it(runs, tmp_path):
    beside = write_report([runs / "evaluated"], out=tmp_path / "a", images="beside", maps=False, limit=3).page
    files = [image["full"] for image in data_of(beside)["runs"][0]["images"] if "thumb" in image]
    assert len(files) == 3  # the most wrong ones
    assert all(Image.open(tmp_path / "a" / name).size == (72, 80) for name in files)
    embedded = write_report([runs / "evaluated"], out=tmp_path / "b", images="embedded", maps=False).page
    assert all(image["full"].startswith("data:image/jpeg") for image in data_of(embedded)["runs"][0]["images"])
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["report.csv", "report.html"]


def test_the_same_page_comes_twice_and_a_new_training_removes_it(runs, evaluated, tmp_path):
    folder = shutil.copytree(runs / "evaluated", tmp_path / "copy")
    assert (
        data_of(write_report([folder], device="cpu").page)["runs"][0]["images"]
        == (data_of(evaluated)["runs"][0]["images"])
    )
    listed = (folder / ".uniad" / "written").read_text()
    assert '"report.html"' in listed
    assert '"report.csv"' in listed


def test_a_boundary_that_was_set_anew_is_said(runs, tmp_path):
    folder = shutil.copytree(runs / "evaluated", tmp_path / "copy")
    table = folder / "test_scores.csv"
    turned = {"good\n": "defective\n", "defective\n": "good\n"}
    lines = table.read_text().splitlines(keepends=True)
    table.write_text(
        "".join([lines[0], *(line.rpartition(",")[0] + "," + turned[line.split(",")[-1]] for line in lines[1:])])
    )
    page = write_report([folder], maps=False).page
    assert "the boundary was set anew since: 10 decisions in test_scores.csv were others" in page.read_text()


def test_other_scores_than_the_tables_are_said(runs, evaluated, tmp_path):
    assert "the maps are of the checkpoint as it is now" not in evaluated.read_text()
    folder = shutil.copytree(runs / "evaluated", tmp_path / "copy")
    rows = rows_of(folder / "test_scores.csv")
    scores = [row["score"] for row in rows][::-1]
    with (folder / "test_scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows({**row, "score": score} for row, score in zip(rows, scores, strict=True))
    assert "the maps are of the checkpoint as it is now" in write_report([folder], device="cpu").page.read_text()
