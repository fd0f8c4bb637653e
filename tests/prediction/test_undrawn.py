"""Overlays that a killed call has drawn without their rows: drawn again under the same name, never a second file."""

import os
import shutil

import pytest

from support.predicting import check_agreement, journal, predict
from support.stand_in import StandIn, part
from uniad_lightning.prediction.files import PARTS, PredictionWriter
from uniad_lightning.prediction.overlays import OverlayFiles
from uniad_lightning.prediction.rows import part_line
from uniad_lightning.prediction.sources.opening import open_source

FOLDERS = ("overlays", "masks")


@pytest.fixture
def killed(tmp_path):
    """Results of three images of which the last two have no rows any more, and an overlay that was being written."""
    for i in range(3):
        part(tmp_path / f"in/{i}.png", defect=(0, 0, 1, 1))
    out = tmp_path / "out"
    predict(tmp_path / "in", out)
    for name in ("predictions.jsonl", "predictions.csv"):
        path = out / name
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[: 1 if name.endswith("l") else 2]))
    shutil.copy(out / "overlays/0.png.png", out / f"overlays/.{'0f' * 16}.tmp")
    (out / "masks/2.png.png").unlink()
    return out


def drawn(folder):
    """The files in the folders of overlays and masks, and those that rows name."""
    files = {path.relative_to(folder).as_posix() for name in FOLDERS for path in (folder / name).rglob("*.*")}
    return files, {row[key] for row in journal(folder) for key in ("overlay", "mask")}


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_each_image_has_one_overlay_after_a_kill(killed, tmp_path, how):
    predict(tmp_path / "in", killed, **{how: True})
    assert check_agreement(killed) == ["0.png", "1.png", "2.png"]
    assert drawn(killed) == ({f"{name}/{i}.png.png" for name in FOLDERS for i in range(3)},) * 2


def test_what_was_drawn_for_an_image_that_is_gone_is_removed(killed, tmp_path):
    (tmp_path / "in/2.png").unlink()
    predict(tmp_path / "in", killed, resume=True)
    assert drawn(killed) == ({f"{name}/{i}.png.png" for name in FOLDERS for i in range(2)},) * 2


def test_pictures_of_others_stay_and_are_not_drawn_over(killed, tmp_path):
    theirs = {killed / "overlays/1.png.png": part, killed / "masks/notes.txt": None, killed / "masks/.x.tmp": None}
    for path, write in theirs.items():
        path.unlink(missing_ok=True)
        write(path) if write else path.write_text("x")
    before = {path: path.read_bytes() for path in theirs}
    predict(tmp_path / "in", killed, resume=True)
    assert {path: path.read_bytes() for path in theirs} == before
    assert journal(killed)[1]["overlay"].startswith("overlays/1.png~")


def test_the_names_of_rows_are_known_also_where_other_processes_have_written_them(killed, tmp_path):
    (item,) = open_source(str(tmp_path / "in/1.png")).items
    with PredictionWriter(killed, overlays="all", settings={}, resume=True) as writer:
        (inspection,) = StandIn().predict([item.read()])
        row = {**writer.row(item, inspection, milliseconds=1.0, error=""), "place": 1}
    os.makedirs(killed / PARTS)
    (killed / PARTS / "1.jsonl").write_bytes(part_line(row))
    PredictionWriter(killed, overlays="all", settings={}, resume=True).close()
    assert (killed / row["overlay"]).is_file()
    assert OverlayFiles(killed).draw(item, inspection)[0] != row["overlay"]


def test_an_image_that_comes_often_unchanged_gets_a_picture_each_time(tmp_path):
    path = part(tmp_path / "1.png", defect=(0, 0, 1, 1))
    (item,) = open_source(str(path)).items
    files = OverlayFiles(tmp_path / "out")
    (tmp_path / "out").mkdir()
    (inspection,) = StandIn().predict([item.read()])
    names = [files.draw(item, inspection) for _ in range(4)]
    assert len(set(names)) == 4
    assert names[0] == ("overlays/1.png.png", "masks/1.png.png")
    assert all((tmp_path / "out" / name).is_file() for pair in names for name in pair)
