"""Inspecting many images: rows, overlays, order, resuming after any end, full disks, memory, and a watched folder."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.memory import alone
from support.paths import TESTS
from support.pictures import header_only, png
from support.predicting import check_agreement, journal, of, predict, table
from support.stand_in import Inspection, StandIn, part
from support.videos import film
from uniad_lightning.data.images.deep_images import TRANSPARENT
from uniad_lightning.errors import InputError
from uniad_lightning.prediction import decoding
from uniad_lightning.prediction.counts import Counts
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.overlays import safe_name
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.sources.headers import decoding_bytes
from uniad_lightning.prediction.sources.items import Item
from uniad_lightning.prediction.sources.opening import open_source


@pytest.fixture
def line(tmp_path):
    """Ten parts, of which two are defective, one looks like nothing known and one is no image."""
    root = tmp_path / "line"
    for i in range(7):
        part(root / f"a/{i}.png")
    part(root / "b/7.png", defect=(4, 5, 10, 7))
    part(root / "b/8.jpg.png", colour=(0, 0, 255), defect=(0, 3, 1, 4))
    (root / "b/9.png").write_bytes(b"%PDF")
    return root


def test_rows_and_overlays(line, tmp_path):
    counts = predict(line, tmp_path / "out")
    assert (counts.good, counts.defective, counts.unfamiliar, counts.failed, counts.inspected) == (7, 2, 1, 1, 9)
    assert check_agreement(tmp_path / "out") == [*(f"a/{i}.png" for i in range(7)), "b/7.png", "b/8.jpg.png", "b/9.png"]
    good, spot, odd, failed = (journal(tmp_path / "out")[i] for i in (0, 7, 8, 9))
    assert (
        good.items() >= {"decision": "good", "score": 0, "normalised_score": 0.4, "regions": [], "overlay": ""}.items()
    )
    assert spot["regions"] == [{"box": [4, 5, 10, 7], "area": 12, "peak": 1.0}]
    assert spot["score"] == pytest.approx(12 / 600)
    assert (spot["decision"], spot["familiar"], odd["familiar"]) == ("defective", True, False)
    stat = (line / "b/7.png").stat()
    assert (spot["size"], spot["mtime_ns"]) == (stat.st_size, stat.st_mtime_ns)
    assert 0 < spot["milliseconds"] < 5000
    assert (spot["overlay"], spot["mask"]) == ("overlays/b/7.png.png", "masks/b/7.png.png")
    assert Image.open(tmp_path / "out/overlays/b/7.png.png").size == (30, 20)
    mask = np.asarray(Image.open(tmp_path / "out/masks/b/7.png.png"))
    assert (mask.sum(), mask[5:7, 4:10].min()) == (12 * 255, 255)
    assert failed["error"].startswith(f"{line / 'b/9.png'}: not an image")
    assert (failed["decision"], failed["score"], failed["familiar"]) == ("", None, None)
    drawn = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png"))
    assert drawn == [f"{kind}/b/{name}.png" for kind in ("masks", "overlays") for name in ("7.png", "8.jpg.png")]


def test_what_is_unfamiliar_is_never_good(tmp_path, capfd):
    part(tmp_path / "line/a.png")
    part(tmp_path / "line/b.png", colour=(0, 0, 255))
    counts = predict(tmp_path / "line", tmp_path / "out", category="bottle", show=True)
    assert (counts.good, counts.unknown) == (1, 1)
    assert [row["decision"] for row in journal(tmp_path / "out")] == ["good", "unknown"]
    assert [row["category"] for row in journal(tmp_path / "out")] == ["bottle", "bottle"]
    check_agreement(tmp_path / "out")
    assert capfd.readouterr().out.startswith("2 images: 1 good, 1 unknown; 1 of them unfamiliar; ")


def test_overlays_of_all_or_none(line, tmp_path):
    predict(line, tmp_path / "all", overlays="all")
    predict(line, tmp_path / "none", overlays="none")
    assert len(list((tmp_path / "all/overlays").rglob("*.png"))) == 9
    assert not np.asarray(Image.open(tmp_path / "all/masks/a/0.png.png")).any()
    assert sorted(os.listdir(tmp_path / "none")) == ["predictions.csv", "predictions.json", "predictions.jsonl"]


def test_a_detector_without_boundary_is_said_once(line, tmp_path, capfd):
    counts = predict(line, tmp_path / "out", detector=StandIn(calibrated=False), overlays="all", show=True)
    out, err = capfd.readouterr()
    assert err.count("uniad: warning: the detector has no boundary") == 1
    assert "uniad calibrate ckpt_path=..." in err
    assert (counts.inspected, counts.good, counts.defective) == (9, 0, 0)
    check_agreement(tmp_path / "out")
    row = journal(tmp_path / "out")[7]
    assert (row["decision"], row["normalised_score"], row["familiar"], row["regions"]) == ("", None, None, [])
    assert (row["overlay"], row["mask"]) == ("overlays/b/7.png.png", "")
    assert not (tmp_path / "out/masks").exists()
    assert out.startswith("10 images: 9 not decided, 1 failed; ")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        (Counts(good=1, inspected=1), "1 image: 1 good; "),
        (Counts(), "0 images: none inspected; "),
        (Counts(failed=2, temporary=1), "2 images: 2 failed (1 worth another try: resume=true); "),
        (
            Counts(good=2, defective=1, unfamiliar=1, inspected=3, skipped=4, failed_before=1, passed_over=5),
            "3 images: 2 good, 1 defective; 1 of them unfamiliar; 4 more done before (1 of them failed); "
            "5 more passed over; ",
        ),
    ],
)
def test_the_numbers_of_the_summary_add_up(counts, said):
    assert counts.summary(Path("out")).startswith(said)


def test_one_line_for_each_image_instead_of_a_bar(line, tmp_path, capfd):
    predict(line, tmp_path / "out", show=True, each=True)
    out, err = capfd.readouterr()
    lines = out.splitlines()
    rows = table(tmp_path / "out")
    assert lines[:-1] == [
        f"{row['path']}: {row['decision']}, score {float(row['score']):.4f}" for row in rows if not row["error"]
    ]
    assert lines[-1].startswith("10 images: ")
    assert "image/s" not in err


def test_the_terminal_shows_failures_and_counts(line, tmp_path, capfd):
    predict(line, tmp_path / "out", show=True)
    out, err = capfd.readouterr()
    assert out.startswith("10 images: 7 good, 2 defective, 1 failed; 1 of them unfamiliar; ")
    assert out.endswith(f" images/s; {tmp_path / 'out'}: predictions.csv, overlays/, masks/\n")
    assert f"uniad: b/9.png failed: {line / 'b/9.png'}: not an image" in err
    assert "10/10" in err


def odd_files(root):
    """What cameras and people leave in folders: a message each, or the pixel in the upper left corner."""
    grey = np.full((20, 30), 40_000, dtype=np.uint16)
    (root / "zero.png").touch()
    (root / "document.jpg").write_bytes(b"%PDF-1.4\n%")
    (root / "cut.jpg").write_bytes(part(root / "whole.jpg", size=(200, 300)).read_bytes()[:700])
    (root / "whole.jpg").unlink()
    header_only(root / "bomb.png", 20_000, 20_000)
    (root / "nowhere.png").symlink_to(root / "gone")
    Image.new("CMYK", (30, 20), (255, 0, 0, 0)).save(root / "print.jpg")
    Image.fromarray(grey).save(root / "deep.png")
    png(root / "deep_colour.png", grey.astype(">u2").tobytes() * 3, size=(20, 30), depth=16, colour=2)
    Image.new("RGBA", (30, 20), (200, 10, 10, 0)).save(root / "clear.png")
    turned = Image.new("RGB", (30, 20), (1, 2, 3))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(root / "turned.png", exif=exif)
    frames = [Image.new("RGB", (30, 20), colour) for colour in ("lime", "red")]
    frames[0].save(root / "moving.gif", save_all=True, append_images=frames[1:])
    os.mkfifo(root / "pipe.png")
    listed = root / "list.txt"
    listed.write_text("".join(f"{name}\n" for name in sorted(os.listdir(root)) if name != "list.txt"))
    return listed


def test_every_odd_file_is_inspected_or_a_row_that_says_what_is_wrong(tmp_path, capfd):
    TRANSPARENT.reset()
    (tmp_path / "in").mkdir()
    shapes_read = {}

    class Looking(StandIn):
        def predict(self, images, category=None):
            for image in images:
                shapes_read[len(shapes_read)] = (image.shape, image[0, 0].tolist())
            return super().predict(images, category)

    predict(odd_files(tmp_path / "in"), tmp_path / "out", detector=Looking(), max_pixels=100_000_000)
    errors = {row["path"]: row["error"] for row in journal(tmp_path / "out")}
    expected = {
        "zero.png": "the file is empty",
        "document.jpg": "begins with b'%PDF-1.4'",
        "cut.jpg": "cannot be decoded",
        "bomb.png": "400.0 megapixels, more than the limit of 100; save it smaller, or raise max_megapixels",
        "nowhere.png": "no such file",
        "pipe.png": "a pipe or device, expected an image file",
    }
    assert {name for name, error in errors.items() if error} == set(expected)
    for name, message in expected.items():
        assert message in errors[name]
        assert str(tmp_path / "in" / name) in errors[name]
        assert "\n" not in errors[name]
    shapes = dict(zip([name for name, error in errors.items() if not error], shapes_read.values(), strict=True))
    assert shapes == {
        "clear.png": ((20, 30, 3), [200, 10, 10]),  # nobody filled its opacity
        "deep.png": ((20, 30, 3), [156, 156, 156]),
        "deep_colour.png": ((20, 30, 3), [156, 156, 156]),
        "moving.gif": ((20, 30, 3), [0, 255, 0]),
        "print.jpg": ((20, 30, 3), shapes["print.jpg"][1]),
        "turned.png": ((30, 20, 3), [1, 2, 3]),
    }
    assert np.abs(np.array(shapes["print.jpg"][1]) - (0, 255, 255)).max() < 5
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "clear.png: is transparent everywhere" in err


def test_settings_that_make_no_sense(line, tmp_path):
    for settings, message in (
        ({"batch_size": 0}, "batch_size=0: expected a whole number from 1"),
        ({"workers": 1.5}, r"workers=1\.5: expected"),
        ({"overlays": "defects"}, r"overlays=defects: expected defective, all or none\. Did you mean 'defective'"),
        ({"overlays_size": 0}, "overlays_size=0: expected GB above 0, or null for a tenth of the disk"),
        ({"overlays_size": "1 GB"}, "overlays_size=1 GB: expected GB above 0"),
        ({"resume": True, "overwrite": True}, "give one of them"),
        ({"category": "bottel"}, "category=bottel: has no boundary"),
    ):
        with pytest.raises(InputError, match=message):
            predict(line, tmp_path / "out", **settings)
    assert journal(tmp_path / "out") == []


def test_overlays_have_a_bound_and_rows_have_none(tmp_path, capfd):
    for i in range(6):
        part(tmp_path / f"line/{i}.png", defect=(4, 5, 10, 7))
    predict(tmp_path / "line", tmp_path / "free", workers=1)
    one = sum((tmp_path / "free" / path).stat().st_size for path in ("overlays/0.png.png", "masks/0.png.png"))
    capfd.readouterr()
    predict(tmp_path / "line", tmp_path / "bound", workers=1, overlays_size=3.5 * one / 1e9)
    drawn = [bool(row["overlay"]) for row in journal(tmp_path / "bound")]
    assert drawn == [True] * 4 + [False] * 2
    assert all(bool(row["mask"]) == bool(row["overlay"]) for row in journal(tmp_path / "bound"))
    assert sorted(path.name for path in (tmp_path / "bound/masks").iterdir()) == [f"{i}.png.png" for i in range(4)]
    assert capfd.readouterr().err.count("no more are drawn, while rows go on; overlays_size=... allows more\n") == 1
    part(tmp_path / "line/6.png", defect=(4, 5, 10, 7))  # what an earlier call drew counts, too
    predict(tmp_path / "line", tmp_path / "bound", workers=1, overlays_size=3.5 * one / 1e9, resume=True)
    assert [bool(row["overlay"]) for row in journal(tmp_path / "bound")] == [*drawn, False]
    predict(tmp_path / "line", tmp_path / "bound", workers=1, overwrite=True)
    assert all(row["overlay"] for row in journal(tmp_path / "bound"))


def test_overlays_stay_inside_and_never_take_anothers_place(tmp_path):
    spot = {"defect": (0, 0, 2, 2)}
    root = tmp_path / "in/deep"
    listed = [
        part(root / "a.png", size=(4, 4), **spot), part(tmp_path / "in/a.png", size=(5, 4), **spot),
        part(root / "_../a.png", size=(6, 4), **spot), part(root / "a.png.png/b.png", size=(7, 4), **spot),
        part(root / ("n" * 240 + ".png"), size=(8, 4), **spot),
        part(root / os.fsdecode(b"caf\xe9.png"), size=(9, 4), **spot),
        part(root / 'quo"te,\r\nline.png', size=(10, 4), **spot), part(tmp_path / "abs.png", size=(11, 4), **spot),
    ]  # fmt: skip
    written = [
        "a.png",
        "../a.png",
        "_../a.png",
        "a.png.png/b.png",
        listed[4].name,
        listed[5].name,
        None,
        str(listed[7]),
    ]
    items = []
    for name, path in zip(written, listed, strict=True):
        (item,) = open_source(str(path)).items
        items.append(item._replace(name=name or 'quo"te,\r\nline.png'))
    items += [items[0]] * 5  # the same image again and again
    with PredictionWriter(tmp_path / "out", overlays="all", settings={}) as writer:
        predict_all(StandIn(), of(items), writer, batch_size=20, workers=4, show=False)
    assert check_agreement(tmp_path / "out") == [item.name for item in items]
    heights = {}
    for row in journal(tmp_path / "out"):
        for kind in ("overlay", "mask"):
            path = (tmp_path / "out" / row[kind]).resolve()
            assert path.is_relative_to(tmp_path / "out" / f"{kind}s")
            with Image.open(path) as image:
                heights.setdefault(path, set()).add((row["path"], image.height))
    assert all(len(what) == 1 for what in heights.values())
    assert {height for what in heights.values() for _, height in what} == set(range(4, 12))
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b.png", "a/b.png"), ("/a/b.png", "a/b.png"), ("../../etc/x", "_../_../etc/x"), ("./a//b", "a/b"), ("", "_"),
        ("C:/x.png", "_C:/x.png"), ("/", "_"), ("film.mp4#000001", "film.mp4#000001"), ("ü" * 150, "ü" * 100),
    ],
)  # fmt: skip
def test_names_become_paths_inside(name, expected):
    assert safe_name(name) == expected


def test_an_occupied_folder_is_refused_or_cleared(line, tmp_path):
    out = tmp_path / "out"
    predict(line, out, overlays="all")
    with pytest.raises(InputError, match=r"already holds predictions; continue them with resume=true, choose another"):
        predict(line, out)
    assert len(journal(out)) == 10
    for stale in (out / "overlays/a/0.png.png", out / "masks/a/0.png.png"):
        assert stale.is_file()
    predict(line / "b", out, overwrite=True)
    assert check_agreement(out) == ["7.png", "8.jpg.png", "9.png"]
    assert not (out / "overlays/a").exists()


def test_folders_of_others_are_left_alone(line, tmp_path):
    for content, message in (
        ("metrics.json", r"holds a run of another command \(metrics\.json\)"),
        ("checkpoints/last.ckpt", "holds a run of another command"),
        ("masks/mine.png", "has a folder masks that is not of predictions"),
    ):
        path = tmp_path / "other" / content
        path.parent.mkdir(parents=True)
        path.write_text("x")
        for settings in ({}, {"overwrite": True}, {"resume": True}):
            with pytest.raises(InputError, match=message):
                predict(line, tmp_path / "other", **settings)
        assert path.read_text() == "x"
        path.rename(tmp_path / path.name)
        for folder in (path.parent, tmp_path / "other"):
            if folder.exists():
                folder.rmdir()


def test_two_writers_at_once_are_refused(line, tmp_path):
    with (
        PredictionWriter(tmp_path / "out", overlays="none", settings={}),
        pytest.raises(InputError, match="another uniad predict writes there"),
    ):
        predict(line, tmp_path / "out", resume=True)
    predict(line, tmp_path / "out", resume=True)


def test_resuming_skips_what_is_done_and_takes_what_changed(line, tmp_path):
    out = tmp_path / "out"
    detector = StandIn()
    predict(line / "a", out, detector=detector)
    part(line / "a/3.png", defect=(1, 1, 2, 2), size=(40, 40))
    part(line / "a/99.png")
    counts = predict(line / "a", out, detector=detector, resume=True)
    assert (counts.skipped, counts.inspected, counts.defective) == (6, 2, 1)
    assert check_agreement(out) == [*(f"{i}.png" for i in range(7)), "3.png", "99.png"]
    assert predict(line / "a", out, resume=True).skipped == 8
    with pytest.raises(InputError, match=r"was begun with input=None, this call has input=x; resume with the same"):
        predict(line / "a", out, resume=True, settings={"input": "x"})


def test_settings_are_kept_and_compared(line, tmp_path):
    settings = {"ckpt_path": "a.ckpt", "category": None}
    predict(line, tmp_path / "out", settings=settings)
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == settings
    predict(line, tmp_path / "out", settings=settings, resume=True)
    with pytest.raises(InputError, match="begun with category=None, this call has category=bottle; resume"):
        predict(line, tmp_path / "out", settings={**settings, "category": "bottle"}, resume=True)
    (tmp_path / "out/predictions.json").unlink()
    with pytest.raises(InputError, match=r"predictions\.json is missing"):
        predict(line, tmp_path / "out", settings=settings, resume=True)


def test_any_torn_end_is_mended(line, tmp_path):
    out = tmp_path / "out"
    predict(line, out, overlays="none")
    whole = (out / "predictions.jsonl").read_bytes()
    names = check_agreement(out)
    starts = np.cumsum([0, *(len(row) + 1 for row in whole.splitlines())])
    rng = np.random.default_rng(0)
    cuts = {0, 1, len(whole) - 1, len(whole), *starts[3:5], *rng.integers(0, len(whole), 30)}
    for cut in sorted(map(int, cuts)):
        (out / "predictions.jsonl").write_bytes(whole[:cut])
        csv_path = out / "predictions.csv"
        csv_path.write_bytes(csv_path.read_bytes()[: int(rng.integers(0, 2000))])
        counts = predict(line, out, overlays="none", resume=True)
        assert counts.skipped == int(np.searchsorted(starts, cut, side="right")) - 1
        assert check_agreement(out) == names
    (out / "predictions.jsonl").write_bytes(whole + b"\0" * 512)  # after a loss of power
    (out / "predictions.csv").unlink()
    assert predict(line, out, overlays="none", resume=True).skipped == 10
    assert check_agreement(out) == names


def test_a_damaged_row_in_the_middle_is_not_cut_off_with_all_that_follows(line, tmp_path):
    predict(line, tmp_path / "out")
    path = tmp_path / "out/predictions.jsonl"
    damaged = path.read_bytes().replace(b'{"path": "a/2.png"', b'{"path: "a/2.png"')
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"predictions\.jsonl, line 3: no row of predictions; restore it"):
        predict(line, tmp_path / "out", resume=True)
    assert path.read_bytes() == damaged


RUN = """
import json, resource, signal, sys
from pathlib import Path
from support.stand_in import StandIn
from support.predicting import predict
more = json.loads(sys.argv[3])
if "file_size" in more:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (more["file_size"], resource.RLIM_INFINITY))
from uniad_lightning.errors import InputError
try:
    predict(sys.argv[1], Path(sys.argv[2]), detector=StandIn(seconds=more.pop("seconds", 0)), resume=True, show=True,
            overlays=more.pop("overlays", "none"))
except InputError as error:
    sys.exit(str(error))
"""


def run(word, folder, **more):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(word), str(folder), json.dumps(more)],
        cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_every_image_once_after_two_kills(tmp_path):
    for i in range(60):
        part(tmp_path / f"in/{i:02d}.png", defect=(0, 0, 1, 1) if i % 3 == 0 else None)
    lines = 0
    for _ in range(2):
        process = run(tmp_path / "in", tmp_path / "out", seconds=0.3, overlays="all")
        path, until = tmp_path / "out/predictions.jsonl", time.monotonic() + 60
        while time.monotonic() < until and process.poll() is None:
            if path.exists() and path.read_bytes().count(b"\n") > lines + 7:
                break
            time.sleep(0.005)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        lines = path.read_bytes().count(b"\n")
    assert 16 <= lines < 60
    counts = predict(tmp_path / "in", tmp_path / "out", overlays="all", resume=True)
    assert counts.skipped + counts.inspected == 60
    assert counts.skipped >= lines - 1
    assert check_agreement(tmp_path / "out") == [f"{i:02d}.png" for i in range(60)]
    for row in journal(tmp_path / "out"):
        Image.open(tmp_path / "out" / row["overlay"]).load()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_everything_goes_on_afterwards(tmp_path):
    for i in range(40):
        part(tmp_path / f"in/{i:02d}.png")
    process = run(tmp_path / "in", tmp_path / "out", file_size=3000)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    assert str(tmp_path / "out") in last
    assert "cannot be written (File too large); what is written is kept: make room" in last
    assert "go on with resume=true" in last
    assert "Traceback" not in err
    names = check_agreement(tmp_path / "out")
    assert 3 <= len(names) < 40
    assert out.startswith(f"{len(names)} images: ")
    counts = predict(tmp_path / "in", tmp_path / "out", overlays="none", resume=True)
    assert counts.skipped == len(names)
    assert check_agreement(tmp_path / "out") == [f"{i:02d}.png" for i in range(40)]


@pytest.mark.slow
def test_overlays_that_do_not_fit_on_the_disk(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / f"in/{i}.png")
    process = run(tmp_path / "in", tmp_path / "out", file_size=8000, overlays="all")
    _, err = process.communicate(timeout=120)
    assert "cannot be written (File too large)" in err.strip().splitlines()[-1]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".png", ".tmp")]
    assert predict(tmp_path / "in", tmp_path / "out", overlays="all", resume=True).inspected == 3


def test_a_place_that_cannot_be_written_to(line, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/out: cannot be written \(Not a directory\)"):
        predict(line, tmp_path / "file/out")


def test_an_interrupt_leaves_whole_files_and_says_the_counts(line, tmp_path, capfd):
    class Impatient(StandIn):
        def predict(self, images, category=None):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().predict(images, category)

    with pytest.raises(KeyboardInterrupt):
        predict(line, tmp_path / "out", detector=Impatient(), show=True)
    assert check_agreement(tmp_path / "out") == [f"a/{i}.png" for i in range(6)]
    assert capfd.readouterr().out.startswith("6 images: 6 good; ")
    assert predict(line, tmp_path / "out", resume=True).skipped == 6


def test_an_interrupt_between_the_two_files_leaves_neither_ahead(line, tmp_path, monkeypatch):
    from uniad_lightning.prediction import open_files

    calls = []
    real = open_files._write

    def write(file, data):
        calls.append(file.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(file, data)

    monkeypatch.setattr(open_files, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        predict(line, tmp_path / "out")
    names = [*(f"a/{i}.png" for i in range(7)), "b/7.png", "b/8.jpg.png", "b/9.png"]
    written = check_agreement(tmp_path / "out")
    assert written == names[: len(written)]  # in order, none left out
    assert len(written) >= 3


def test_rows_are_written_while_the_next_batch_is_inspected_and_kept_when_that_fails(line, tmp_path):
    """So that no batch waits for the overlays of the one before."""
    row_counts = []

    class Looking(StandIn):
        def predict(self, images, category=None):
            row_counts.append(len(check_agreement(tmp_path / "out")))
            return super().predict(images, category)

    predict(line, tmp_path / "out", detector=Looking(), batch_size=4)
    # The first call asks about the category only. The batch before may still wait, but not where its memory is needed.
    assert row_counts[:2] == [0, 0]
    assert row_counts[2] in (0, 4)
    assert row_counts[3] in (4, 8)

    class Failing(StandIn):
        def predict(self, images, category=None):
            if len(self.batches) == 2:
                raise RuntimeError("out of memory")
            return super().predict(images, category)

    with pytest.raises(RuntimeError, match="out of memory"):
        predict(line, tmp_path / "failed", detector=Failing(), batch_size=4)
    assert len(check_agreement(tmp_path / "failed")) == 8


def test_full_batches_but_never_waiting_for_one(tmp_path):
    part(tmp_path / "a.png")
    (item,) = open_source(str(tmp_path / "a.png")).items
    detector = StandIn()
    with PredictionWriter(tmp_path / "out", overlays="none", settings={}) as writer:
        stream = of([*[item] * 10, None, None, None, item, item, None, None, item])
        predict_all(detector, stream, writer, batch_size=4, workers=2, show=False)
    assert detector.batches == [4, 4, 2, 2, 1]


def little_memory(monkeypatch, size):
    monkeypatch.setattr(decoding, "MEMORY", size)
    monkeypatch.setattr(decoding, "MEMORY_PER_WORKER", 0)


def test_large_images_make_smaller_batches(tmp_path, monkeypatch):
    little_memory(monkeypatch, 16_000)
    detector = StandIn()

    def read():
        return np.zeros((40, 25, 3), dtype=np.uint8)

    items = [Item(f"{i}.png", read, needs=lambda: 9000) for i in range(8)]
    with PredictionWriter(tmp_path / "out", overlays="all", settings={}) as writer:
        predict_all(detector, of(items), writer, batch_size=8, workers=1, show=False)
    assert detector.batches == [3, 3, 2]


@pytest.mark.parametrize("workers", [1, 3, 16])
@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_what_is_decoded_and_what_waits_fit_into_the_memory_together(tmp_path, monkeypatch, workers, batch_size):
    """Each size, also one larger than the memory, in any order, with what fails in between."""
    little_memory(monkeypatch, 40_000)
    lock, alive, most, large = threading.Lock(), weakref.WeakKeyDictionary(), [], []
    decoding_now = []
    Array.__hash__ = object.__hash__

    def reader(pixels, fails):
        def read():
            with lock:
                decoding_now.append(16 * pixels)
                most.append(sum(decoding_now) + sum(alive.values()))
                large.append(16 * pixels > 40_000)
            time.sleep(0.001)
            with lock:
                decoding_now.remove(16 * pixels)
                if fails:
                    raise InputError("is no image")
                image = np.zeros((1, pixels, 3), dtype=np.uint8).view(Array)
                alive[image] = image.nbytes
            return image

        return read

    rng = np.random.default_rng(workers)
    pixels = [int(n) for n in rng.choice([10, 300, 900, 2000, 5000], 80)]
    items = [
        Item(f"{i}.png", reader(n, i % 7 == 3), needs=lambda n=n: 16 * n) for i, n in enumerate(pixels)
    ]  # fmt: skip
    with PredictionWriter(tmp_path / "out", overlays="all", settings={}) as writer:
        counts = predict_all(StandIn(), of(items), writer, batch_size=batch_size, workers=workers, show=False)
    assert (counts.inspected, counts.failed) == (69, 11)
    assert [row["path"] for row in journal(tmp_path / "out")] == [item.name for item in items]
    # A thread of the pool refers to its image for a moment after the row is done.
    held = 3 * max(pixels)
    assert max(total for total, alone in zip(most, large, strict=True) if not alone) <= 40_000 + held
    assert max(most) <= 80_000 + held  # the largest alone


def test_an_image_is_measured_by_its_header(tmp_path):
    part(tmp_path / "a.png", size=(300, 200))
    assert decoding_bytes(tmp_path / "a.png", 10**6) >= 3 * 300 * 200
    assert decoding_bytes(tmp_path / "a.png", 10_000) == 0  # refused
    (tmp_path / "b.png").write_bytes(b"%PDF")
    assert decoding_bytes(tmp_path / "b.png", 10**6) == decoding_bytes(tmp_path / "gone.png", 10**6) == 0
    header_only(tmp_path / "bomb.png", 30_000, 30_000)
    assert decoding_bytes(tmp_path / "bomb.png", 10**8) == 0
    assert decoding_bytes(tmp_path / "bomb.png", 10**9) > 10**9
    with_needs = next(open_source(str(tmp_path / "a.png")).items)
    assert with_needs.needs() == decoding_bytes(tmp_path / "a.png", 10**8)


class Array(np.ndarray):
    """One that can be referred to weakly."""


def test_few_decoded_images_are_alive_at_any_time(tmp_path):
    alive = weakref.WeakSet()
    most = []

    def read():
        image = np.zeros((6, 6, 3), dtype=np.uint8).view(Array)
        alive.add(image)
        most.append(len(alive))
        return image

    Array.__hash__ = object.__hash__
    items = (Item(f"{i}.png", read) for i in range(300))
    with PredictionWriter(tmp_path / "out", overlays="all", settings={}) as writer:
        predict_all(StandIn(), of(items), writer, batch_size=4, workers=3, show=False)
    assert len(most) == 300
    assert max(most) <= 4 * 4  # a batch that is inspected, one that was, and two ahead


def memory_of_predictions(folder):
    image = np.full((2, 2, 3), 9, dtype=np.uint8)
    sizes = {}

    def items():
        for i in range(10_000):
            if i in (4_000, 9_999):
                sizes[i] = tracemalloc.get_traced_memory()[0]
            yield Item(f"folder/part-{i:06d}.png", lambda: image, i, i)

    tracemalloc.start()
    with PredictionWriter(folder, overlays="none", settings={}) as writer:
        counts = predict_all(StandIn(), of(items()), writer, batch_size=100, workers=2, show=False)
    assert counts.good == 10_000
    return sizes[9_999] - sizes[4_000], tracemalloc.get_traced_memory()[1]


def memory_of_a_resume(folder):
    tracemalloc.start()
    with PredictionWriter(folder, overlays="none", settings={}, resume=True) as writer:
        assert writer.kept == 10_000
        memory = tracemalloc.get_traced_memory()[0]
        assert writer.done(Item("folder/part-009999.png", None, 9_999, 9_999))
        assert not writer.done(Item("folder/part-009999.png", None, 9_999, 10_000))
    return memory


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    growth, peak = alone(memory_of_predictions, tmp_path)
    assert growth < 300_000  # their names alone would be twice as much
    assert peak < 4 << 20
    assert alone(memory_of_a_resume, tmp_path) < 1 << 20


@pytest.mark.slow
def test_a_watched_folder_each_part_once_also_after_a_restart(tmp_path):
    for i in range(5):
        os.utime(part(tmp_path / f"in/{i}.png"), (1, 1))
    stop = threading.Event()

    def produce():
        for i in range(40):
            if stop.is_set():
                return
            whole = part(tmp_path / f"elsewhere/{i}.png", size=(40, 50)).read_bytes()
            with (tmp_path / f"in/new{i:02d}.png").open("wb") as file:  # in parts, and another one at the same time
                for start in range(0, len(whole), 60):
                    file.write(whole[start : start + 60])
                    file.flush()
                    time.sleep(0.02)
            if i == 20:
                part(tmp_path / "in/new03.png", defect=(0, 0, 5, 5), size=(60, 60))

    class Broken(StandIn):
        def predict(self, images, category=None):
            if sum(self.batches) > 15:
                raise KeyboardInterrupt
            return super().predict(images, category)

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            predict(tmp_path / "in", tmp_path / "in/out", detector=Broken(), watch=True)
        first = len(check_agreement(tmp_path / "in/out"))
        counts = predict(tmp_path / "in", tmp_path / "in/out", watch=True, stop_after_idle=3, resume=True)
    finally:
        stop.set()
        producer.join()
    assert counts.skipped >= first - 1 > 14  # one of them may have been replaced in between
    names = check_agreement(tmp_path / "in/out")
    assert sorted(names) == sorted(
        [*(f"{i}.png" for i in range(5)), *(f"new{i:02d}.png" for i in range(40)), "new03.png"]
    )
    assert not [row["error"] for row in journal(tmp_path / "in/out") if row["error"]]
    assert [row["decision"] for row in journal(tmp_path / "in/out") if row["path"] == "new03.png"] == [
        "good",
        "defective",
    ]


def test_video_frames_have_rows_and_can_be_resumed(tmp_path):
    path = film(tmp_path / "film.avi", "MJPG")
    predict(path, tmp_path / "out", every=3, overlays="all")
    assert check_agreement(tmp_path / "out") == [f"film.avi#{i:06d}" for i in range(0, 30, 3)]
    assert Image.open(tmp_path / "out/overlays/film.avi#000027.png").size == (64, 48)
    assert predict(path, tmp_path / "out", every=3, overlays="all", resume=True).skipped == 10
    assert all(0 < row["milliseconds"] < 5000 for row in journal(tmp_path / "out"))


def test_a_score_that_is_no_number_is_an_error(tmp_path):
    class Damaged(StandIn):
        def predict(self, images, category=None):
            found = super().predict(images, category)
            for inspection in found:
                type(inspection).score = property(lambda self: float("nan"))
            return found

    kept = Inspection.score
    try:
        part(tmp_path / "a.png")
        counts = predict(tmp_path / "a.png", tmp_path / "out", detector=Damaged())
    finally:
        Inspection.score = kept
    assert (counts.failed, counts.good) == (1, 0)
    assert journal(tmp_path / "out")[0]["error"].startswith("the detector's score is nan")
