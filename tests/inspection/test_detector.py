"""From a checkpoint to a decision on an image: calibrate, load, predict."""

import csv
import json
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from support.settings import SMALL
from support.trees import mvtec_tree
from uniad_lightning import Detector
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.boundary import Boundary
from uniad_lightning.inspection.detector import rgb_from_array
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.training.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def categories(tmp_path_factory):
    return mvtec_tree(tmp_path_factory.mktemp("categories"), train=40, good=6, size=(80, 72))


@pytest.fixture(scope="module")
def calibrated(categories, tmp_path_factory):
    """A detector of two epochs with boundaries, its checkpoint, and where the calibration was reported."""
    from uniad_lightning.command_line.cli import run_command

    folder = tmp_path_factory.mktemp("runs")
    words = [*SMALL, f"data.root={categories}", "data.held_out=0.3", f"output_dir={folder}/run", "standardize=true"]
    assert run_command("train", words) == 0
    checkpoint = folder / "run/checkpoints/last.ckpt"
    assert run_command("calibrate", [f"ckpt_path={checkpoint}", f"output_dir={folder}/report", "rate=0.1"]) == 0
    return checkpoint, folder / "report"


@pytest.fixture(scope="module")
def detector(calibrated):
    return Detector.load(calibrated[0], device="cpu")


def image_path(categories, name="bottle/test/scratch/000.png"):
    return categories / name


def test_calibration_is_kept_in_the_checkpoint_and_reported(calibrated, detector):
    checkpoint, report = calibrated
    kept = load_checkpoint(str(checkpoint))
    assert kept["categories"] == ["bottle", "cable"]
    report_values = json.loads((report / "calibration.json").read_text())
    assert report_values["overall"] == kept["calibration"]["overall"]
    assert set(report_values["categories"]) == {"bottle", "cable"}
    assert detector.calibration.overall.images == sum(b.images for b in detector.calibration.categories.values())
    assert 12 <= detector.calibration.overall.images <= 40  # about 0.3 of 80
    assert Image.open(report / "scores.png").width > 500
    rows = (report / "outcomes.csv").read_text().splitlines()
    assert rows[0] == "kind,category,boundary,good,false_alarms,defective,misses"
    assert len(rows) == 1 + 2 * 3
    assert all(0 <= share <= 1 for share in report_values["unfamiliar"].values())


@pytest.mark.slow
def test_held_out_images_are_not_trained_on(categories, uniad, tmp_path):
    status, out, err = uniad(
        "train", *SMALL, f"data.root={categories}", "data.held_out=0.3", f"output_dir={tmp_path}/run", "trainer=smoke"
    )
    assert status == 0, err
    assert "held-out" in out


def test_the_checkpoint_still_resumes_and_evaluates_after_calibration(calibrated, uniad, tmp_path):
    status, _, err = uniad("evaluate", f"ckpt_path={calibrated[0]}", f"output_dir={tmp_path}/again")
    assert status == 0, err


@pytest.mark.slow
def test_boundaries_stay_where_no_step_is_trained(uniad, tree, tmp_path):
    run = tmp_path / "run"
    last = run / "checkpoints/last.ckpt"
    words = [*SMALL, f"data.root={tree}", "data.held_out=0.3", f"output_dir={run}"]
    assert uniad("train", *words)[0] == 0
    assert (
        uniad("calibrate", f"ckpt_path={last}", f"output_dir={tmp_path / 'report'}", "device=cpu", "rate=0.3")[0] == 0
    )
    before = last.read_bytes()
    status, _, err = uniad("train", *words, f"ckpt_path={last}", "overwrite=true")
    assert (status, "boundaries" in err, last.read_bytes() == before) == (0, False, True), err


@pytest.mark.slow
def test_the_decision_is_that_of_the_score_that_evaluation_gives(calibrated, detector, categories, uniad, tmp_path):
    status, _, err = uniad("evaluate", f"ckpt_path={calibrated[0]}", f"output_dir={tmp_path}/e", "save_maps=true")
    assert status == 0, err
    for file in (tmp_path / "e/maps").iterdir():
        kept = np.load(file)
        result = detector.predict(str(kept["path"]))
        assert result.score == pytest.approx(float(kept["score"]), abs=1e-5)
        np.testing.assert_allclose(result.scored_map, kept["map"], atol=1e-4)
        assert result.defective == (result.score > detector.calibration.deciding(result.category).score)
        own = detector.predict(str(kept["path"]), category=str(kept["category"]))
        assert own.defective == (own.score > detector.calibration.categories[str(kept["category"])].score)


def test_every_kind_of_input_gives_the_same_result(detector, categories):
    path = image_path(categories)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    expected = detector.predict(path)
    alike = [
        str(path), Image.open(path), pixels, pixels.astype(np.uint16) * 257, pixels / 255, (pixels / 255).astype("f4"),
        np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]), torch.from_numpy(pixels.copy()).permute(2, 0, 1),
        torch.from_numpy(pixels / 255).permute(2, 0, 1),
    ]  # fmt: skip
    for one in alike:
        assert detector.predict(one).score == pytest.approx(expected.score, abs=1e-6)
    together = detector.predict(alike)
    assert [r.score for r in together] == pytest.approx([expected.score] * len(alike), abs=1e-5)
    assert detector.predict([]) == []
    grey = detector.predict(pixels[..., 0])
    assert grey.score == pytest.approx(detector.predict(np.repeat(pixels[..., :1], 3, axis=2)).score, abs=1e-6)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((0, 5, 3), np.uint8), "shape"),
        (np.zeros((5, 5, 2), np.uint8), "channels"),
        (np.zeros(5, np.uint8), "shape"),
        (np.full((5, 5), 1.5), "floats from 1.5 to 1.5; expected 0 to 1"),
        (np.full((5, 5), np.nan), "expected 0 to 1"),
        (np.zeros((5, 5), np.int32), "int32"),
    ],
)
def test_arrays_that_are_not_images_are_refused(array, words):
    with pytest.raises(InputError, match=words):
        rgb_from_array(array)


def test_results_are_at_the_size_of_the_image(detector, categories):
    result = detector.predict(image_path(categories))
    assert result.anomaly_map.shape == result.mask.shape == (80, 72)
    assert result.overlay().size == (72, 80)
    assert sum(region.area for region in result.regions) == result.mask.sum()
    large = detector.predict(np.asarray(Image.open(image_path(categories)).resize((720, 801))))
    assert large.anomaly_map.shape == (801, 720)


def inspection(scored_map, size, score=10.0, **changes):
    boundary = Boundary(score=5.0, pixel=5.0, spread=1.0, images=100, rate=0.01, low=0.0, high=0.03)
    given = {"region": (0.0, 0.0, 1.0, 1.0), "category": None, "boundary": boundary, "familiar": None, **changes}
    return Inspection(np.zeros((*size, 3), np.uint8), score, np.asarray(scored_map, dtype=np.float32), **given)


def test_regions_are_boxes_in_pixels_of_the_image():
    scored = np.zeros((20, 30))
    scored[2:5, 3:9] = 8
    scored[5, 9] = 6  # touches by a corner
    scored[15:18, 20:22] = 9
    result = inspection(scored, (20, 30))
    assert [r.box for r in result.regions] == [(20, 15, 22, 18), (3, 2, 10, 6)]
    assert [(r.area, r.peak) for r in result.regions] == [(6, 9.0), (19, 8.0)]
    assert result.decision == "defective"
    good = inspection(scored, (20, 30), score=4.0)
    assert (good.regions, good.decision, good.mask.any()) == ((), "good", False)
    unknown = inspection(scored, (20, 30), boundary=None)
    assert (unknown.defective, unknown.normalised, unknown.decision, unknown.regions) == (None, None, None, ())
    assert unknown.overlay().size == (30, 20)


@pytest.mark.parametrize("peak", [4.0, 5.0, 1e-6])
def test_a_defective_image_has_a_region_though_no_pixel_is_above_the_boundary_of_pixels(peak):
    """Its score is a pooled value, and the boundary of pixels is that of good images' peaks."""
    scored = np.zeros((16, 16))
    scored[4:7, 4:7] = peak * 0.8  # above three quarters of the way to the peak
    scored[5, 5] = peak
    scored[12, 12] = peak * 0.9  # as high, but elsewhere
    (region,) = inspection(scored, (16, 16)).regions
    assert (region.box, region.area) == ((4, 4, 7, 7), 9)
    assert region.peak == pytest.approx(peak)
    assert inspection(np.full((4, 4), peak), (4, 4)).mask.all()  # a map without a peak


def test_what_is_below_the_boundary_but_unfamiliar_is_unknown():
    scored = np.zeros((4, 4))
    decisions = {
        (score, familiar): inspection(scored, (4, 4), score=score, familiar=familiar).decision
        for score in (4.0, 6.0) for familiar in (True, False, None)
    }  # fmt: skip
    assert decisions == {
        (4.0, True): "good", (4.0, False): "unknown", (4.0, None): "good",
        (6.0, True): "defective", (6.0, False): "defective", (6.0, None): "defective",
    }  # fmt: skip


def test_outside_the_region_nothing_is_inspected():
    scored = np.full((10, 10), 7.0)
    scored[0, 0] = 1.0
    result = inspection(scored, (40, 40), region=(0.25, 0.5, 0.75, 1.0))
    assert result.anomaly_map.shape == (40, 40)
    assert (result.anomaly_map[:10] == 1).all()
    assert (result.anomaly_map[:, :20] == 1).all()
    assert result.regions[0].box[1:] == (10, 40, 30)


def test_an_overlay_shows_the_defect_in_another_colour():
    scored = np.zeros((16, 16))
    scored[4:8, 4:8] = 10
    overlay = np.asarray(inspection(scored, (16, 16)).overlay()).astype(int)
    assert abs(overlay[5, 5] - overlay[0, 0]).sum() > 60
    assert (overlay[4, 4] == 255).all()  # the box


@pytest.mark.slow
def test_threads_share_one_detector(detector, categories):
    paths = [str(path) for path in sorted(categories.rglob("test/*/*.png"))] * 3
    alone = [detector.predict(path).score for path in paths]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda path: detector.predict(path).score, paths))
    assert together == pytest.approx(alone, abs=1e-6)


def test_foreign_images_are_unfamiliar_and_good_ones_are_not(detector, categories):
    good = [detector.predict(str(path)).familiar for path in categories.rglob("test/good/*.png")]
    assert sum(good) >= 0.75 * len(good)
    rng = np.random.default_rng(0)
    stripes = np.repeat((np.arange(72) % 8 < 4)[None, :, None] * np.uint8(255), 80, axis=0).repeat(3, axis=2)
    foreign = [rng.integers(0, 256, (80, 72, 3), dtype=np.uint8), stripes, np.full((80, 72, 3), 255, np.uint8)]
    foreign += [np.zeros((80, 72, 3), np.uint8), np.full((1, 1, 3), 128, np.uint8)]
    assert [detector.predict(one).familiar for one in foreign] == [False] * 5
    assert not {"good"} & {detector.predict(one).decision for one in foreign}


def test_the_category_found_in_an_image_chooses_its_boundary(detector, categories):
    calibration = detector.calibration
    assert calibration.by_category
    for path in categories.rglob("test/*/*.png"):
        result = detector.predict(str(path))
        assert result.category == path.parents[2].name or path.parent.name != "good"
        assert result.boundary == calibration.categories[result.category]
        assert result.decision == detector.predict(str(path), category=result.category).decision


def test_familiarity_is_the_distance_to_the_nearest_reference():
    known = torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    measure = Familiarity(references=known, boundary=0.5)
    torch.testing.assert_close(measure.distance(known), torch.zeros(2))
    torch.testing.assert_close(measure.distance(torch.tensor([[1.0, 10.0]])), torch.tensor([1 / 2**0.5]))
    distance, found = measure.nearest(known)
    assert found.tolist() == [-1, -1]  # a checkpoint of an earlier version has no categories
    named = Familiarity(references=known, boundary=0.5, names=("a", "b"), owners=torch.tensor([1, 0]))
    assert named.nearest(known + 1)[1].tolist() == [1, 0]
    assert [part.tolist() for part in named.apart()] == [pytest.approx([2.0, 2.0]), [0, 1]]
    assert Familiarity.from_plain(named.plain()).nearest(known)[1].tolist() == [1, 0]
    again = Familiarity.from_plain(measure.plain())
    torch.testing.assert_close(again.distance(known + 1), measure.distance(known + 1), atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_a_checkpoint_without_boundaries_scores_but_does_not_decide(tree, uniad, tmp_path):
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/run", "trainer=smoke")
    assert status == 0, err
    checkpoint = tmp_path / "run/checkpoints/last.ckpt"
    before = checkpoint.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector = Detector.load(checkpoint, device="cpu")
    result = detector.predict(np.zeros((50, 50, 3), np.uint8))
    assert (result.decision, result.familiar, result.regions) == (None, None, ())
    assert "not calibrated" in repr(result)
    with pytest.raises(InputError, match="uniad calibrate"):
        detector.predict(np.zeros((50, 50, 3), np.uint8), category="bottle")
    status, _, err = uniad("calibrate", f"ckpt_path={checkpoint}", f"output_dir={tmp_path}/c")
    assert status == 2
    assert "data.held_out=0.1" in err
    assert "good=FOLDER" in err
    assert checkpoint.read_bytes() == before
    status, _, err = uniad(
        "calibrate", f"ckpt_path={checkpoint}", f"output_dir={tmp_path}/c", f"good={tree}/bottle/test/good", "rate=0.5"
    )
    assert status == 0, err
    assert Detector.load(checkpoint).calibration.overall.images == 2
    status, _, err = uniad("calibrate", f"ckpt_path={checkpoint}", f"output_dir={tmp_path}/c", "by=f1")
    assert status == 2
    assert "already holds" in err
    status, _, err = uniad(
        "calibrate", f"ckpt_path={checkpoint}", f"output_dir={tmp_path}/d", "by=recall", "recall=0.9"
    )
    assert status == 0, err
    calibration = Detector.load(checkpoint).calibration
    assert calibration.method == "recall=0.9"
    assert set(calibration.categories) == {"bottle", "cable"}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("by=median", "by=median: expected one of rate, f1, recall"),
        ("rate=0", "rate=0: expected a share"),
        ("recall=1.5", "recall=1.5"),
        ("good=nowhere", "good: 'nowhere' matches no image"),
        ("device=cuda:7", "device=cuda:7"),
        ("ckpt_path=nowhere.ckpt", "nowhere.ckpt: no such file"),
    ],
)
def test_what_calibrate_cannot_use_is_one_line(calibrated, uniad, tmp_path, override, words):
    words_given = [f"ckpt_path={calibrated[0]}", f"output_dir={tmp_path}/c", override]
    status, _, err = uniad("calibrate", *words_given[override.startswith("ckpt_path") :])
    assert status == 2
    errors = [line for line in err.splitlines() if line.startswith("uniad")]
    assert len(errors) == 1
    assert words in errors[0]


def test_an_unknown_category_is_named_with_those_that_are_known(detector):
    with pytest.raises(InputError, match=r"category=botle: .* Did you mean 'bottle'\?.* bottle, cable"):
        detector.predict(np.zeros((20, 20, 3), np.uint8), category="botle")


def test_an_image_beyond_the_limit_is_refused(calibrated, categories):
    small = Detector.load(calibrated[0], device="cpu", max_pixels=1000)
    with pytest.raises(InputError, match=r"5760|72"):
        small.predict(image_path(categories))
    with pytest.raises(InputError, match=r"is a folder; give its files, or use uniad predict input="):
        small.predict(categories)


def test_a_run_folder_stands_for_the_checkpoint_that_it_reports(calibrated, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(calibrated[0], run / "checkpoints" / "best_on_test.ckpt")
    (run / "checkpoints" / "last.ckpt").write_bytes(b"")
    (run / "metrics.json").write_text(json.dumps({"checkpoint": "best_on_test"}))
    assert Detector.load(run, device="cpu").calibration == Detector.load(calibrated[0], device="cpu").calibration
    (run / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"last\.ckpt: cannot be read as a checkpoint; it is empty"):
        Detector.load(run)
    with pytest.raises(InputError, match=r"is a folder, and no run folder \(checkpoints/last\.ckpt is not in it\)"):
        Detector.load(tmp_path)


def test_a_detector_says_what_it_is(calibrated, detector, tmp_path):
    scores = sorted(own.score for own in detector.calibration.categories.values())
    own = f"each category's own, {scores[0]:.4g} to {scores[-1]:.4g}"
    assert repr(detector) == f"Detector(model: UniAD; categories: bottle, cable; boundary: {own} (rate=0.1))"
    entries = {**torch.load(calibrated[0], weights_only=True)}
    del entries["calibration"]
    torch.save(entries, tmp_path / "without.ckpt")
    assert repr(Detector.load(tmp_path / "without.ckpt")).endswith("boundary: not set, see uniad calibrate)")


@pytest.mark.slow
def test_commands_take_a_run_folder(calibrated, categories, uniad, tmp_path):
    run = shutil.copytree(calibrated[0].parents[1], tmp_path / "run")
    shutil.rmtree(run / "calibration", ignore_errors=True)
    words = [f"ckpt_path={run}"]
    status, _, err = uniad("predict", *words, f"input={categories}/bottle/test", f"output_dir={tmp_path}/p")
    assert status == 0, err
    status, _, err = uniad("evaluate", *words, f"output_dir={tmp_path}/e", "trainer=cpu")
    assert status == 0, err
    assert json.loads((tmp_path / "e/metrics.json").read_text())["checkpoint"] == f"{run}/checkpoints/last.ckpt"
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    status, _, err = uniad("calibrate", *words, f"output_dir={tmp_path}/c", "rate=0.2")
    assert status == 0, err
    assert (run / "checkpoints" / "last.ckpt").read_bytes() != before
    status, _, err = uniad("export", *words, f"output_dir={tmp_path}/x")
    assert status == 0, err
    assert repr(Detector.load(run / "checkpoints" / "last.onnx")).startswith(
        "Detector(model: last.onnx; categories: bottle, cable; boundary: "
    )
    status, _, err = uniad("evaluate", f"ckpt_path={run}/checkpoints/last.onnx", f"output_dir={tmp_path}/o")
    assert status == 2
    assert "it is an exported ONNX model; give the checkpoint that it was exported from" in err


def test_a_checkpoint_from_the_future_or_elsewhere_is_refused(tmp_path):
    torch.save({"state_dict": {}, "config": {}}, tmp_path / "half.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(InputError, match="is not a checkpoint of uniad-lightning"):
        Detector.load(tmp_path / "half.ckpt")
    with pytest.raises(InputError, match="cannot be read"):
        Detector.load(tmp_path / "text.ckpt")


@pytest.mark.slow
def test_what_was_trained_on_never_sets_the_boundary(uniad, tmp_path):
    """Not by another share, not by `good=`, not under another name, and not because the folder has changed."""
    root = mvtec_tree(tmp_path / "parts", categories=["bottle"], train=20, size=(40, 40))
    status, _, err = uniad("train", *SMALL, f"data.root={root}", f"output_dir={tmp_path}/run", "trainer=smoke")
    assert status == 0, err
    checkpoint = f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt"
    given = ["data=mvtec", f"data.root={root}", "data.image_size=64"]
    status, _, err = uniad("calibrate", checkpoint, f"output_dir={tmp_path}/a", *given, "data.held_out=0.5")
    assert status == 2
    assert "used all good images" in err
    status, _, err = uniad("calibrate", checkpoint, f"output_dir={tmp_path}/b", f"good={root}/bottle/*/good")
    assert status == 2
    assert "19 more were trained on" in err
    words = [*SMALL, f"data.root={root}", "data.held_out=0.3", "trainer=smoke", f"output_dir={tmp_path}/held"]
    status, _, err = uniad("train", *words)
    assert status == 0, err
    checkpoint = f"ckpt_path={tmp_path}/held/checkpoints/last.ckpt"
    trained = load_checkpoint(checkpoint.removeprefix("ckpt_path="))["trained"]
    assert 8 <= len(trained) <= 19
    status, _, err = uniad("calibrate", checkpoint, f"output_dir={tmp_path}/c", "rate=0.4")
    assert status == 0, err
    before = json.loads((tmp_path / "c/calibration.json").read_text())["overall"]["images"]
    assert before == 20 - len(trained)
    (root / "bottle").rename(root / "flask")
    status, _, err = uniad("calibrate", checkpoint, f"output_dir={tmp_path}/d", *given)
    assert status == 2
    assert "held-out images of flask; the checkpoint was trained on bottle" in err
    assert "leave the others out with 'data.categories=[bottle" in err


def outcomes_of(folder):
    with (folder / "outcomes.csv").open(newline="") as file:
        return {(row["kind"], row["category"]): row for row in csv.DictReader(file)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["as they lie", "linked", "copied", "one by one"])
def test_test_images_that_set_the_boundary_are_not_in_the_report(calibrated, categories, uniad, tmp_path, how):
    checkpoint = shutil.copy(calibrated[0], tmp_path / "last.ckpt")
    good = {"as they lie": f"good={categories}/bottle/test/good", "linked": f"good={tmp_path}/g"}.get(how)
    if how == "linked":
        (tmp_path / "g").symlink_to(categories / "bottle/test/good")
    elif how == "copied":
        shutil.copytree(categories / "bottle/test/good", tmp_path / "elsewhere")
        good = f"good={tmp_path}/elsewhere"
    elif how == "one by one":
        good = f"good=[{','.join(map(str, sorted((categories / 'bottle/test/good').iterdir())))}]"
    words = [f"ckpt_path={checkpoint}", f"output_dir={tmp_path}/c", "rate=0.1", good]
    status, _, err = uniad("calibrate", *words)
    assert status == 0, err
    assert "test images among the further good ones: 6;" in err
    rows = outcomes_of(tmp_path / "c")
    assert (rows["one", "bottle"]["good"], rows["one", "cable"]["good"]) == ("0", "6")
    assert int(rows["one", "bottle"]["defective"]) > 0


def test_other_good_images_leave_the_report_whole(calibrated, categories, uniad, tmp_path):
    checkpoint = shutil.copy(calibrated[0], tmp_path / "last.ckpt")
    other = mvtec_tree(tmp_path / "other", categories=["bottle"], train=3, size=(50, 50))
    words = [f"ckpt_path={checkpoint}", f"output_dir={tmp_path}/c", "rate=0.1", f"good={other}/bottle/train/good"]
    status, _, err = uniad("calibrate", *words)
    assert status == 0, err
    assert "test images among" not in err
    assert outcomes_of(tmp_path / "c")["one", "bottle"]["good"] == "6"


@pytest.mark.slow
def test_without_held_out_images_calibrate_ends_before_anything_long_and_the_training_says_so(uniad, tree, tmp_path):
    words = [*SMALL, "data=mix", f"data.source.parts={{a:{{layout:mvtec,root:{tree}}}}}", f"output_dir={tmp_path}/run"]
    status, _, err = uniad("train", *words, "trainer=smoke", "data.held_out=0")
    assert status == 0, err
    assert "warning: no good images are held out" in err
    report = tmp_path / "c"
    report.mkdir()
    status, _, err = uniad("calibrate", f"ckpt_path={tmp_path}/run/checkpoints/last.ckpt", f"output_dir={report}")
    assert status == 2
    assert "data.held_out=0.1" in err
    assert "scores of" not in err  # the bar of the scoring
    assert not any(report.iterdir())
    status, _, err = uniad("train", *words, "trainer=smoke", "overwrite=true")  # of a mix a tenth is held out
    assert status == 0, err
    assert "held out" not in err


@pytest.mark.slow
def test_many_threads_may_predict_first_while_others_load(calibrated, categories):
    paths = [str(path) for path in sorted(categories.rglob("test/*/*.png"))][:4]
    warm = Detector.load(calibrated[0], device="cpu")
    expected = [warm.predict(path).score for path in paths]

    def fresh(_):
        return [Detector.load(calibrated[0], device="cpu").predict(path).score for path in paths[:2]]

    def shared(_):
        return [warm.predict(path).score for path in paths]

    with ThreadPoolExecutor(6) as threads:
        loaded = [threads.submit(fresh, i) for i in range(6)]
        shared_results = [threads.submit(shared, i) for i in range(12)]
        for future in loaded:
            assert future.result() == pytest.approx(expected[:2], abs=1e-6)
        for future in shared_results:
            assert future.result() == pytest.approx(expected, abs=1e-6)


def test_a_stream_is_inspected_one_by_one_and_its_error_passed_on(detector, categories):
    taken = []

    def frames():
        for i in range(3):
            taken.append(i)
            yield image_path(categories)
        raise OSError("the camera is gone")

    found = detector.stream(frames())
    assert taken == []
    first = next(found)
    assert taken == [0]
    assert first.score == detector.predict(image_path(categories)).score
    assert len([next(found), next(found)]) == 2
    with pytest.raises(OSError, match="the camera is gone"):
        next(found)
    with pytest.raises(InputError, match="^category=tin: has no boundary of its own"):
        detector.stream([], category="tin")
    with pytest.raises(InputError, match="an array of shape"):
        next(detector.stream([np.zeros(3)]))
