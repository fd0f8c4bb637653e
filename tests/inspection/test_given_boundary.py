"""A boundary that is given decides in place of the file's own: of checkpoints and exported files, everywhere."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from support.hostile_models import BOUNDARY, model
from uniad_lightning import Detector
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.inspection.given_boundary import with_given

OWN = Boundary(1.0, 2.0, 0.5, 9, 0.1, 0.0, 0.2)
CALIBRATION = Calibration("rate=0.1", OWN, {"screw": OWN._replace(score=3.0, spread=2.0)}, by_category=True)


def moved(given, calibration=CALIBRATION):
    return with_given(calibration, given, categories=["screw", "tile"])


def test_one_score_decides_every_image_and_keeps_the_scale():
    found = moved(4)
    assert [found.deciding(name).score for name in ("screw", "tile", None)] == [4.0] * 3
    assert found.of("screw").score == 4
    assert found.of("screw").normalised(4) == 0.5
    assert found.of("screw").normalised(6) == pytest.approx(1 / (1 + math.exp(-3)))  # one spread above
    assert (found.overall.pixel, found.overall.images, found.overall.low, found.overall.high) == (2.0, 0, 0.0, 1.0)
    assert CALIBRATION.overall == OWN
    assert moved(None) is CALIBRATION


def test_scores_by_category_decide_where_it_is_found():
    found = moved({"tile": 7}, CALIBRATION._replace(by_category=False))
    assert [found.deciding(name).score for name in ("screw", "tile", None)] == [3.0, 7.0, 1.0]
    assert moved({"müller": 2}, CALIBRATION._replace(categories={"müller": OWN})).of("müller").score == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0.5", "expected a score, or one for each category"),
        (True, "boundary=True"),
        (math.nan, "boundary=nan"),
        ({}, "expected a score"),
        ({"screw": "x"}, "boundary='x'"),
        ({"scrow": 1}, "no category scrow. Did you mean 'screw'? The detector's: screw, tile"),
    ],
)
def test_anything_else_is_refused_in_a_line(given, words):
    with pytest.raises(InputError, match="boundary") as refused:
        moved(given)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_without_a_calibration_there_is_nothing_to_move():
    with pytest.raises(InputError, match=r"boundary=2: the detector has no calibration .* uniad calibrate"):
        moved(2, None)


@pytest.fixture
def exported(tmp_path):
    """An exported file whose score of a grey image is its level, with boundaries at 1 and two categories."""
    calibration = {"method": "rate=0.1", "overall": BOUNDARY, "categories": {"a": BOUNDARY}, "by_category": False}
    path = tmp_path / "levels.onnx"
    path.write_bytes(model(categories=["a", "b"], calibration=calibration).SerializeToString())
    for level in (5, 9):
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / f"{level}.png")
    return path


def test_an_exported_file_decides_by_it_without_the_checkpoint(exported):
    image = np.full((8, 8, 3), 7, np.uint8)
    own, higher = Detector.load(exported, device="cpu"), Detector.load(exported, device="cpu", boundary=7)
    assert own.predict(image).decision == "defective"
    result = higher.predict(image)
    assert (result.score, result.normalised, result.decision) == (7.0, 0.5, "good")
    assert higher.predict(image, category="a").decision == "good"
    assert "boundary: 7 (boundary=7)" in repr(higher)
    assert Detector.load(exported, device="cpu", boundary={"b": 8}).predict(image, category="b").decision == "good"


def rows(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_the_command_line_takes_it_and_resumes_only_with_the_same(exported, uniad, tmp_path):
    words = [f"ckpt_path={exported}", f"input={tmp_path}/*.png", f"output_dir={tmp_path}/out", "device=cpu"]
    status, _, err = uniad("predict", *words, "boundary=7", "report=true")
    assert status == 0, err
    found = rows(tmp_path / "out")
    assert {row["path"]: row["decision"] for row in found.values()} == {"5.png": "good", "9.png": "defective"}
    assert [float(found["9.png"][name]) for name in ("score", "normalised_score")] == [
        9.0,
        pytest.approx(1 / (1 + math.exp(-3 * 2 / BOUNDARY["spread"]))),
    ]
    assert json.loads((tmp_path / "out/predictions.json").read_text())["boundary"] == 7
    assert "boundary=7, given" in (tmp_path / "out/report.html").read_text()
    status, _, err = uniad("predict", *words, "boundary=8", "resume=true")
    assert (status, "boundary" in err) == (2, True), err
    status, _, err = uniad("predict", *words[:2], f"output_dir={tmp_path}/own", "boundary={a:7}", "category=a")
    assert status == 0, err
    assert rows(tmp_path / "own")["5.png"]["decision"] == "good"


@pytest.mark.parametrize("word", ["boundary=high", "boundary={c:3}"])
def test_a_mistake_on_the_command_line_is_one_line(exported, uniad, tmp_path, word):
    status, _, err = uniad(
        "predict", f"ckpt_path={exported}", f"input={tmp_path}/5.png", f"output_dir={tmp_path}/out", word
    )
    assert status == 2
    assert err.startswith("uniad: boundary")
    assert len(err.splitlines()) == 1
