"""Verdicts are read from what people save, kept once each with their history, and refused in one line."""

import csv
import json
import os
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timezone
from multiprocessing import get_context

import pytest

from support.verdicts import add_all, entry
from uniad_lightning.feedback.history import Entry, add, latest, read_history
from uniad_lightning.feedback.predictions import Predictions, open_predictions
from uniad_lightning.prediction.rows import empty_row, journal_line
from uniad_lightning.prediction.sources.items import broken_item

NAMES = ("a/1.png", "a/2.png", "b/1.png", "=cmd|x.png", " blank.png", os.fsdecode(b"\xff.png"), "a\rb.png")


@pytest.fixture
def predicted(tmp_path):
    """A folder of predictions: every second image is called defective."""
    folder = tmp_path / "out"
    folder.mkdir()
    rows = [{**empty_row(broken_item(name, ""), 1.0, ""), "size": 10 + place} for place, name in enumerate(NAMES)]
    for place, row in enumerate(rows):
        row |= {"score": place / 8, "decision": ["good", "defective"][place % 2], "category": row["path"][:1]}
    (folder / "predictions.jsonl").write_bytes(b"".join(map(journal_line, rows)))
    settings = {"ckpt_path": "/somewhere/last.ckpt", "ckpt_changed": 10**18, "input": str(tmp_path / "photos")}
    (folder / "predictions.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def give(uniad, predicted, tmp_path):
    """Give verdicts as a file with this content: (status, stdout, stderr)."""

    def call(content, name="verdicts.csv"):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return uniad("feedback", f"predictions={predicted}", f"verdicts={file}")

    return call


def kept(folder):
    """Path and verdict of every row of the history."""
    return [(entry.path, entry.verdict) for entry in read_history(folder)]


def test_a_verdict_is_kept_with_what_had_been_decided(give, predicted):
    status, out, err = give("path,verdict,by,when,note\na/2.png,good,Kim,2026-05-04T13:30:00+02:00,glare\n")
    assert (status, err) == (0, "")
    assert "1 false alarm of 1 good, 0 misses of 0 defective" in out
    assert read_history(predicted) == [
        Entry(
            datetime(2026, 5, 4, 11, 30, tzinfo=timezone.utc),
            "a/2.png",
            "good",
            "Kim",
            "glare",
            "defective",
            0.125,
            "a",
            11,
            "/somewhere/last.ckpt",
            "2001-09-09T01:46:40.000+00:00",
        )  # fmt: skip
    ]


def test_the_same_call_adds_nothing_the_second_time(give, predicted):
    content = "path,verdict\na/1.png,good\na/2.png,defective\n"
    assert give(content)[0] == 0
    before = (predicted / "feedback.csv").read_bytes()
    status, out, _ = give(content)  # written anew, as by a spreadsheet, so that its time is another
    assert status == 0
    assert "0 verdicts added, 0 in place of an earlier one; 2 there before" in out
    assert (predicted / "feedback.csv").read_bytes() == before


def test_a_row_with_its_time_is_not_added_again_after_it_was_changed(give, predicted):
    first = "path,verdict,when\na/1.png,good,2026-01-01T00:00:00Z\n"
    give(first)
    give("path,verdict,when\na/1.png,defective,2026-02-01T00:00:00Z\n")
    assert "0 verdicts added" in give(first)[1]
    assert kept(predicted) == [("a/1.png", "good"), ("a/1.png", "defective")]


def test_of_two_verdicts_the_later_counts_and_both_are_kept(give, predicted):
    status, out, _ = give("path,verdict\na/2.png,good\na/2.png,defective\n")
    assert status == 0
    assert kept(predicted) == [("a/2.png", "good"), ("a/2.png", "defective")]
    assert "verdicts so far on 1 image: 0 false alarms of 0 good, 0 misses of 1 defective" in out
    # Later by its time, whatever the order of the rows.
    give("path,verdict,when\nb/1.png,good,2026-03-02T00:00:00Z\nb/1.png,defective,2026-03-01T00:00:00Z\n")
    assert latest(read_history(predicted))["b/1.png"].verdict == "good"
    before = (predicted / "feedback.csv").read_bytes()
    status, out, _ = give("path,verdict\na/2.png,good\n")
    assert "1 verdict added, 1 in place of an earlier one" in out
    assert (predicted / "feedback.csv").read_bytes().startswith(before)  # no row was changed


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfPath;Verdict;note\r\na/1.png;Good;x\r\na/2.png; DEFECTIVE ;y\r\n",
        "path\tverdict\na/1.png\tgood\na/2.png\tdefective\n".encode("utf-16"),
        b'verdict,score,"path"\ngood,0.1,"a/1.png"\n\ndefective,,a/2.png\n,0.3,b/1.png\n',
    ],
    ids=["semicolons and a mark", "Unicode text of Excel", "other columns, no verdict in one row"],
)
def test_what_spreadsheets_save_is_read(give, predicted, content):
    status, _, err = give(content)
    assert (status, err) == (0, "")
    assert kept(predicted) == [("a/1.png", "good"), ("a/2.png", "defective")]


def test_cells_that_a_spreadsheet_would_compute_are_marked_and_odd_names_found(give, predicted):
    odd = ["'=cmd|x.png", " blank.png", "\\udcff.png", '"a\rb.png"']  # as predictions.csv has them
    rows = "".join(f"{name},good,=1+2\n" for name in odd)
    status, _, err = give(f"path,verdict,note\n{rows}")
    assert (status, err) == (0, "")
    with (predicted / "feedback.csv").open(newline="") as file:
        cells = list(csv.DictReader(file, strict=True))
    assert [row["path"] for row in cells] == ["'=cmd|x.png", " blank.png", "\\udcff.png", "a\rb.png"]
    assert {row["note"] for row in cells} == {"'=1+2"}
    entries = latest(read_history(predicted))
    assert {entry.note for entry in entries.values()} == {"=1+2"}
    found = open_predictions(predicted).rows(entries)
    assert {row["path"] for row in found.values()} == set(NAMES[3:])
    assert give("path,verdict\na\\rb.png,good\n")[0] == 0  # as the page shows it
    assert len(latest(read_history(predicted))) == 4


def add_rows(folder, *names):
    rows = [{**empty_row(broken_item(name, ""), 1.0, ""), "size": 1, "score": 0.5, "category": "a"} for name in names]
    with (folder / "predictions.jsonl").open("ab") as file:
        file.write(b"".join(map(journal_line, rows)))


def test_the_whole_name_wins_over_one_without_its_blanks(give, predicted):
    add_rows(predicted, " p.png", "p.png", "p.png ")
    status, _, err = give("path,verdict\n p.png,good\np.png,defective\np.png ,good\n")
    assert (status, err) == (0, "")
    assert kept(predicted) == [(" p.png", "good"), ("p.png", "defective"), ("p.png ", "good")]
    rows = open_predictions(predicted).rows([" p.png", "p.png", "p.png "])
    assert {name: row["path"] for name, row in rows.items()} == {name: name for name in rows}
    assert give("path,verdict\n a/1.png ,good\n")[0] == 0  # of one image alone the blanks do not matter


@pytest.mark.parametrize("name", ["\\udcff.png", "a\\rb.png", "q.png"])
def test_a_name_that_two_images_have_is_refused(give, predicted, name):
    add_rows(predicted, "\\udcff.png", "a\\rb.png", " q.png", "q.png ")  # the first two are also how others are written
    status, _, err = give(f"path,verdict\n{name},good\n")
    assert status == 2
    (line,) = err.splitlines()
    assert f"{name!r}: 2 images of {predicted} are written so; rename all but one" in line
    assert not (predicted / "feedback.csv").exists()


def test_long_notes_are_refused_and_a_history_with_them_is_read(give, predicted):
    status, _, err = give(f"path,verdict,note\na/1.png,good,{'x' * 10_001}\n")
    assert status == 2
    (line,) = err.splitlines()
    assert "line 2: note has 10001 characters, expected at most 10000" in line
    add(predicted, [entry("a/1.png", "good", 0)._replace(note="x" * 200_000)])
    assert give(f"path,verdict,note\na/2.png,good,{'x' * 10_000}\n")[0] == 0
    assert [len(one.note) for one in read_history(predicted)] == [200_000, 10_000]
    assert csv.field_size_limit() == 131_072  # other readers are left as they were


def test_a_table_from_the_future_is_refused(give, uniad, predicted, tmp_path):
    file = tmp_path / "v.csv"
    file.write_text("path,verdict\na/1.png,good\n")
    os.utime(file, (4e9, 4e9))
    status, _, err = uniad("feedback", f"predictions={predicted}", f"verdicts={file}")
    assert status == 2
    (line,) = err.splitlines()
    assert "was last changed at 2096-10-02T07:06:40+00:00, which is still to come" in line
    file.write_text("path,verdict,when\na/1.png,good,2026-01-01T00:00:00Z\n")  # its rows have their own time
    os.utime(file, (4e9, 4e9))
    assert uniad("feedback", f"predictions={predicted}", f"verdicts={file}")[0] == 0


@pytest.mark.parametrize("changed", [10**40, -(10**40), 10**400])
def test_an_impossible_time_of_the_checkpoint_is_one_line(give, predicted, changed):
    settings = json.loads((predicted / "predictions.json").read_text())
    (predicted / "predictions.json").write_text(json.dumps({**settings, "ckpt_changed": changed}))
    status, _, err = give("path,verdict\na/1.png,good\n")
    assert status == 2
    (line,) = err.splitlines()
    assert "predictions.json: ckpt_changed is " in line


LATER = "9999-01-01T00:00:00+00:00"  # the same in each process of a test run, which must find the same tests


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("path,verdict\na/3.png,good\n", ["line 2", "'a/3.png' has no row", "Did you mean 'a/"]),
        ("path,verdict\nx\\y\\1.png,good\n", ["line 2", "has no row", "Did you mean"]),
        ("path,verdict\na/1.png,ok\n", ["line 2", "verdict is 'ok'", "good or defective"]),
        ("path,verdikt\na/1.png,good\n", ["line 1", "no column 'verdict'", "Did you mean 'verdikt'"]),
        ("path,path,verdict\na,b,good\n", ["'path' is there twice"]),
        ("path,verdict,when\na/1.png,good,yesterday\n", ["line 2", "when is 'yesterday'", "2026-05-04T13:30"]),
        (f"path,verdict,when\na/1.png,good,{LATER}\n", ["line 2", "still to come"]),
        ("path,verdict\n,good\n", ["line 2", "without a path"]),
        ("path,verdict\na/1.png,\n", ["holds no verdict"]),
        ("", ["no column 'path'"]),
        ("path,verdict,note\na/1.png,good,one, two\n", ["line 2", "has 4 cells, the head 3"]),
        ('path,verdict\n"a/1.png,good\n', ["no row of CSV"]),
        (b"path,verdict\n\xe4.png,good\n", ["not UTF-8 at byte 13"]),
    ],
)
def test_a_mistake_is_one_line_and_adds_nothing(give, predicted, content, words):
    status, _, err = give(content)
    assert status == 2
    (line,) = err.splitlines()
    for word in ["verdicts.csv", *words]:
        assert word in line
    assert not (predicted / "feedback.csv").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["verdicts=absent.csv"], "verdicts=absent.csv: cannot be read; No such file"),
        (["change=bank"], "change=bank: expected one of boundary, memory_bank, training"),
        (["apply=true"], "apply=true: there is nothing to write"),
        (["apply=yes", "change=boundary"], "apply=yes: expected true or false"),
        (["rate=0.1"], "rate=0.1: has an effect with change=boundary alone; leave it out"),
        (["change=memory_bank", "by=rate"], "by=rate: has an effect with change=boundary alone"),
        (["change=training", "good=photos"], "good=photos: has an effect with change=boundary alone"),
        (["change=boundary"], "no image has a verdict yet"),
        (["earlier=absent"], "predictions=absent: no such folder"),
    ],
)
def test_words_that_cannot_be_used_are_one_line(uniad, predicted, words, said):
    status, _, err = uniad("feedback", f"predictions={predicted}", *words)
    assert status == 2
    (line,) = err.splitlines()
    assert said in line


def test_a_folder_without_predictions_is_refused(uniad, tmp_path):
    status, _, err = uniad("feedback", f"predictions={tmp_path}")
    assert status == 2
    assert "has no predictions.jsonl; expected the output_dir of uniad predict" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["when,path\n", "cut", "path;verdict\n", b"\xff", "good", "row"])
def test_a_history_that_another_program_has_changed_is_not_added_to(give, predicted, damage):
    give("path,verdict\na/1.png,good\n")
    file = predicted / "feedback.csv"
    sound = file.read_bytes()
    damaged = {
        "cut": sound[:-3],
        "good": sound.replace(b"good", b"well", 1),
        "row": sound + b"x\n",
    }.get(damage, damage) if isinstance(damage, str) else damage  # fmt: skip
    file.write_bytes(damaged.encode() if isinstance(damaged, str) else damaged)
    before = file.read_bytes()
    status, _, err = give("path,verdict\na/2.png,good\n")
    assert status == 2
    assert f"{file}" in err
    assert "restore it" in err
    assert file.read_bytes() == before


def test_calls_at_the_same_time_add_every_verdict_once(tmp_path):
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        added = list(pool.map(add_all, [str(tmp_path)] * 8, range(8)))  # each verdict is given by two of them
    assert sum(added) == 80
    assert sorted(kept(tmp_path)) == sorted((f"{part}/{i}.png", "good") for part in range(4) for i in range(20))


def test_a_full_disk_adds_nothing(small_disk):
    add(small_disk, [entry("a.png", "good", 0)])
    before = (small_disk / "feedback.csv").read_bytes()
    (small_disk / "filler").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize))
    with pytest.raises(ValueError, match="no verdict was added; No space left on device"):
        add(small_disk, [entry(f"{i}.png", "good", 1) for i in range(2000)])
    assert (small_disk / "feedback.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("given", "name", "file"),
    [
        ("photos", "a/1.png", "photos/a/1.png"),
        ("gone", "a/1.png", "gone/a/1.png"),
        ("photos/*/1.*", "a/1.png", "photos/a/1.png"),
        ("photos/a/1.png", "1.png", "photos/a/1.png"),
        ("photos/list.txt", "a/1.png", "photos/a/1.png"),
        ("photos/list.txt", "/other/1.png", "/other/1.png"),
        ("film.mp4", "film.mp4#000012", None),
        ("camera:0", "camera-0#1", None),
    ],
)
def test_the_file_of_a_row_is_found_for_every_kind_of_input(tmp_path, given, name, file):
    (tmp_path / "photos").mkdir()
    root = "" if given == "camera:0" else f"{tmp_path}/"
    found = Predictions(tmp_path, {"input": f"{root}{given}"}).file_of(name, None)
    assert found == (None if file is None else tmp_path / file)
