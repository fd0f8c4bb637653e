"""`uniad report` and a user's mistakes: one line that names the file and the remedy; what is missing is said."""

import json
import shutil

import pytest

from support.reports import data_of, table_of
from uniad_lightning.report.write import write_report


@pytest.fixture
def refused(command):
    """Run `uniad report` and demand status 2 and one line with all of `expected`."""

    def call(*words, expected):
        status, _, err = command("report", *map(str, words))
        assert status == 2, err
        assert len(err.splitlines()) == 1, err
        for part in expected:
            assert str(part) in err

    return call


@pytest.fixture
def folder(runs, tmp_path):
    """A copy of the evaluation that a test may spoil."""
    return shutil.copytree(runs / "evaluated", tmp_path / "copy")


def test_the_command_says_where_the_page_is(command, folder):
    status, out, err = command("report", str(folder), "maps=false")
    assert status == 0, err
    assert f"page: {folder}/report.html" in out
    assert f"scores: {folder}/report.csv" in out
    assert command("report")[:2] == command("report", "--help")[:2]
    assert "RUN [RUN...]" in command("report")[1]


def test_a_folder_that_is_not_there(refused, tmp_path):
    refused(tmp_path / "absent", expected=[tmp_path / "absent", "no such folder", "uniad train"])


def test_a_file_in_place_of_a_folder(refused, folder):
    refused(folder / "metrics.json", expected=["metrics.json: is a file"])


def test_a_folder_that_is_no_run(refused, tree):
    refused(tree, expected=[tree, "holds no run", "test_scores.csv"])


def test_a_run_without_scores(refused, folder):
    (folder / "test_scores.csv").unlink()
    refused(folder, expected=[folder, "has no scores", "uniad evaluate"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: expected the columns"),
        ("path,category\na,b\n", "line 1: expected the columns"),
        ("path,category,label,score,decision\n", "has no rows"),
        ("path,category,label,score,decision\na,b,good,much,\n", "line 2: score is 'much'"),
        ("path,category,label,score,decision\na,b,good,nan,\n", "line 2: score is 'nan'"),
        ("path,category,label,score,decision\na,b,fine,1,\n", "line 2: label is 'fine'"),
        ("path,category,label,score,decision\na,b,good\n", "line 2: has fewer cells"),
        ("path,category,label,score,decision\na,b,good,1,,,\n", "line 2: has more cells"),
        ('path,category,label,score,decision\n"a,b,good,1,\n', "is damaged"),
        (b"path,category,label,score,decision\n\xff,b,good,1,\n", "is damaged"),
    ],
)
def test_a_damaged_table(refused, folder, text, expected):
    (folder / "test_scores.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(folder, expected=[folder / "test_scores.csv", expected, "uniad evaluate"])


@pytest.mark.parametrize(("name", "text"), [("metrics.json", "{"), ("metrics.json", "[]"), ("config.yaml", "a: [")])
def test_other_damaged_files(command, refused, folder, name, text):
    (folder / name).write_text(text)
    if name == "metrics.json":
        refused(folder, expected=[folder / name])
    else:  # what the settings would have told is left out, and the page says so
        assert command("report", str(folder), "maps=false")[0] == 0
        assert f"kinds of defect and masks are not known: {folder}/config.yaml" in (folder / "report.html").read_text()


@pytest.mark.parametrize("text", ["{}x", "[1]", '{"method": 1}', '{"method": "a", "overall": {}, "categories": {}}'])
def test_damaged_boundaries(refused, runs, tmp_path, text):
    folder = shutil.copytree(runs / "run" / "calibration", tmp_path / "copy")
    (folder / "calibration.json").write_text(text)
    refused(folder, "maps=false", expected=[folder / "calibration.json"])


def test_damaged_predictions(refused, runs, tmp_path):
    folder = shutil.copytree(runs / "predicted", tmp_path / "copy")
    journal = folder / "predictions.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([lines[0], "{}\n", *lines[2:]]))
    refused(folder, expected=[journal, "line 2"])
    journal.write_text("")
    refused(folder, expected=[journal, "has no rows"])


@pytest.mark.parametrize("text", ["max_megapixels: many", "white_level: bright"])
def test_damaged_settings_of_predictions(refused, runs, tmp_path, text):
    folder = shutil.copytree(runs / "predicted", tmp_path / "copy")
    (folder / "config.yaml").write_text(f"{text}\n")
    refused(folder, "maps=false", expected=[text.partition(":")[0]])


def test_options_that_are_none(refused, folder):
    refused(folder, "imags=beside", expected=["imags=", "Did you mean 'images'?"])
    refused(folder, "images=besides", expected=["images=besides", "Did you mean 'beside'?"])
    refused(folder, "maps=maybe", expected=["maps=maybe", "true or false"])
    refused(folder, "limit=-1", expected=["limit=-1"])
    refused(folder, "out=a", "out=b", expected=["out=", "twice"])
    refused("maps=false", expected=["names no run folder"])
    refused(folder, "device=abacus", expected=["device=abacus"])


def test_a_missing_checkpoint_is_an_error_unless_maps_are_left_out(refused, command, folder):
    facts = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**facts, "checkpoint": "/absent/last.ckpt"}))
    refused(folder, expected=["/absent/last.ckpt: no such file", "maps=false"])
    assert command("report", str(folder), "maps=false")[0] == 0
    assert data_of(folder / "report.html")["runs"][0]["boundary"]["method"] is None
    assert {row["decision"] for row in table_of(folder / "report.html")} == {""}


def test_settings_of_strangers_build_nothing(command, folder):
    config = (folder / "config.yaml").read_text()
    assert "data:" in config
    target = "data:\n  source:\n    _target_: os.system\n    command: touch owned\n  _target_: os.getcwd\n"
    (folder / "config.yaml").write_text(target)
    assert command("report", str(folder), "maps=false")[0] == 0
    assert "is 'os." in (folder / "report.html").read_text().replace("&#39;", "'")


def test_images_that_are_gone_are_named_and_end_in_status_1(command, folder):
    table = folder / "test_scores.csv"
    table.write_text(table.read_text().replace("/bottle/test/hole/000.png", "/bottle/test/hole/gone.png"))
    status, _, err = command("report", str(folder), "device=cpu")
    assert status == 1
    assert "1 images have no picture on the page; the first: " in err
    assert "gone.png: no such file" in err
    assert "1 images have no picture; the first: " in (folder / "report.html").read_text()


def test_images_that_uniad_predict_could_not_read_are_in_the_table(uniad, runs, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.png").write_bytes(b"no image")
    words = [f"ckpt_path={runs}/run", f"input={photos}", f"output_dir={tmp_path}/out", "device=cpu", "report=true"]
    status, _, err = uniad("predict", *words)
    assert status == 1, err
    (row,) = table_of(tmp_path / "out" / "report.html")
    assert row["score"] == ""
    assert "broken.png" in row["error"]


def test_a_watch_without_an_end_has_no_page(uniad, runs, tmp_path):
    words = [f"ckpt_path={runs}/run", f"input={tmp_path}", f"output_dir={tmp_path}/out", "watch=true", "report=true"]
    status, _, err = uniad("predict", *words)
    assert status == 2
    assert "stop_after_idle" in err


def test_predictions_whose_images_are_gone_keep_their_scores(runs, tree, tmp_path):
    folder = shutil.copytree(runs / "predicted", tmp_path / "copy")
    settings = json.loads((folder / "predictions.json").read_text())
    (folder / "predictions.json").write_text(json.dumps({**settings, "input": str(tree / "bottle" / "train")}))
    written = write_report([folder], maps=False)
    assert written.failed == len(table_of(written.page))
    assert "is no longer in the input" in written.reason
