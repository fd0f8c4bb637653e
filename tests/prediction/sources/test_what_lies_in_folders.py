"""What folders hold beside whole images: links in a circle, pipes, thumbnails, other formats, and results."""

import io
import os
import re
import time

import pytest

from support.sources import Watched, names, old, save
from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.prediction.sources import folder_events
from uniad_lightning.prediction.sources import watch_folder as watching
from uniad_lightning.prediction.sources.arrivals import file_state
from uniad_lightning.prediction.sources.opening import open_source
from uniad_lightning.prediction.sources.passed_over import PassedOver
from uniad_lightning.prediction.sources.taken import Taken


@pytest.fixture
def photos(tmp_path):
    """Seven images at several depths, and a text."""
    for name in ("b.png", "a/2.JPG", "a/10.jpg", "a/deep/x.tif", "a.png", "c [1]/y.bmp", "a/a/2.png"):
        save(tmp_path / "photos" / name)
    (tmp_path / "photos/notes.txt").write_text("x")
    return tmp_path / "photos"


def test_one_entry_that_cannot_be_looked_at_costs_no_other(photos, tmp_path):
    (photos / "a/round.png").symlink_to("round.png")
    (photos / "a/circle").symlink_to("other")
    (photos / "a/other").symlink_to("circle")
    (photos / "share").symlink_to(tmp_path / "away")
    (photos / "notes").write_text("no link")
    items = {item.name: item for item in open_source(str(photos)).items}
    assert len(items) == 7 + 4
    for name, message in (
        ("a/round.png", "a/round.png: cannot be accessed (Too many levels of symbolic links); mend the link"),
        ("a/circle", "a/circle: cannot be accessed (Too many levels of symbolic links); mend the link"),
        ("a/other", "a/other: cannot be accessed (Too many levels"),
        ("share", "share: cannot be accessed (No such file or directory); mend the link"),
    ):
        with pytest.raises(TemporaryError, match=re.escape(message)):
            items[name].read()
    assert names(open_source(f"{photos}/a/*.jpg")) == ["10.jpg"]  # no other matches


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_link_into_a_forbidden_folder_costs_no_other(photos, tmp_path):
    save(tmp_path / "closed/below/1.png")
    (photos / "link").symlink_to(tmp_path / "closed/below")
    (photos / "link.png").symlink_to(tmp_path / "closed/below/1.png")
    (tmp_path / "closed").chmod(0)
    try:
        items = {item.name: item for item in open_source(str(photos)).items}
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert len(items) == 7 + 2
    with pytest.raises(TemporaryError, match=r"link: cannot be accessed \(Permission denied\)"):
        items["link"].read()


def test_links_back_are_found_by_what_they_lead_to(photos):
    """Also where each has another name, and a folder of the way is a link itself."""
    (photos / "a/up").symlink_to("..")
    (photos / "a/deep/here").symlink_to(photos / "a/deep")
    (photos.parent / "entry").symlink_to(photos)
    found = names(open_source(str(photos.parent / "entry")))
    assert len(found) == len(set(found)) == 7


def test_what_other_programs_leave_is_left_out(photos):
    for name in ("@eaDir/b.png/THUMB_M.png", ".ipynb_checkpoints/b.png", "a/@EADIR/1.png", "__MACOSX/._b.png"):
        save(photos / name)
    for name in ("Thumbs.db", "a/desktop.ini", "a/._b.png"):
        (photos / name).write_bytes(b"x")
    (photos / "notes.txt").unlink()
    source = open_source(str(photos))
    assert len(names(source)) == 7
    assert source.passed_over.summary() == ""


def test_what_is_no_image_by_its_suffix_is_counted(photos):
    head = save(photos / "b.png").read_bytes()
    for name in ("a/1.HEIC", "a/2.heic", "part", "raw.dng", "old.png.bak", "seen.png ", "frame.0001", "frame.0002"):
        (photos / name).write_bytes(head)
    for name in ("label.json", "results.csv", "data.bin", "film.mp4", "print.rtf"):
        (photos / name).write_bytes(b"{}")
    save(photos / "000.png/1.png")
    source = open_source(str(photos))
    assert "000.png/1.png" in names(source)
    passed_over = source.passed_over
    assert passed_over.images == {".heic": 2, "": 3, ".dng": 1, ".bak": 1, ".png ": 1}
    others = dict.fromkeys([".txt", ".json", ".csv", ".bin", ".mp4", ".rtf"], 1)
    assert passed_over.counts == {**passed_over.images, **others}
    line = passed_over.summary()
    assert line.startswith("passed over, not images by their suffix: 3 without suffix, 2 .heic, ")
    assert "of these 3 without suffix, 2 .heic" in line
    assert "'.png '" in line
    assert line.isprintable()
    pattern = open_source(f"{photos}/a/*")
    names(pattern)
    assert pattern.passed_over.counts == {".heic": 2}
    expected = r"matches no image in .*; passed over, not images by their suffix: 1 \.heic; of these"
    with pytest.raises(InputError, match=expected):
        open_source(f"{photos}/a/2.h*")


def test_many_files_that_are_no_images_are_not_all_opened(monkeypatch):
    passed_over, opened = PassedOver(), []
    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", lambda path, *_: opened.append(path) or io.BytesIO(b"nothing"))
        for i in range(1000):
            passed_over.note(f"{i}.dat")
            passed_over.note(f"{i}.json")
    assert passed_over.counts == {".dat": 1000, ".json": 1000}
    assert not passed_over.images
    assert len(opened) == 100


def in_place(path, content):
    path.write_bytes(content)


def by_moving(path, content):
    path.with_suffix(".part").write_bytes(content)
    os.utime(path.with_suffix(".part"), (1, 1))
    path.with_suffix(".part").replace(path)


@pytest.mark.slow
@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("replace", [in_place, by_moving])
def test_another_image_of_the_same_size_and_time_is_found(tmp_path, monkeypatch, replace, events):
    monkeypatch.setattr(watching, "_SCAN", 0.5)
    if not events:
        monkeypatch.setattr(folder_events._Handler, "dispatch", lambda self, event: None)
    first, second = (save(tmp_path / f"{i}.bmp", value=i).read_bytes() for i in range(2))
    path = save(tmp_path / "in/part.bmp", value=0)
    os.utime(path, (1, 1))
    with Watched(tmp_path / "in", stop_after_idle=4.0) as watched:
        watched.wait_for(1)
        replace(path, second)
        os.utime(path, (1, 1))
        watched.wait_for(2)
        replace(path, second)  # the same image: only its inode or ctime is another
        os.utime(path, (1, 1))
        time.sleep(1)
        path.chmod(0o600)
    assert first != second
    assert watched.names == ["part.bmp"] * 2


@pytest.mark.parametrize(("told", "parts"), [(False, 1), (True, 2)])
def test_a_share_that_comes_back_has_no_new_images_unless_the_system_told_so(tmp_path, told, parts):
    path, taken, versions = tmp_path / "a.png", Taken(), []
    for content in (b"0", b"1"):  # not read in between: an earlier call has its row
        by_moving(path, content)
        os.utime(path, (1, 1))
        versions.append(taken.version("a.png", file_state(str(path)), path, told=told))
    assert len([version for version in versions if version is not None]) == parts


def test_each_replaced_image_has_its_own_version(tmp_path):
    taken, path, versions = Taken(), tmp_path / "a.png", []
    for content in (b"0", b"1", b"2"):
        by_moving(path, content)
        now = file_state(str(path))
        versions.append(taken.version("a.png", now, path, told=False))
        taken.was_read("a.png", now, path)
        assert taken.is_known("a.png", now)
        assert taken.version("a.png", now, path, told=False) is None
    assert versions[0] == ""
    assert None not in versions
    assert len(set(versions)) == 3


@pytest.mark.slow
def test_a_watched_folder_with_what_is_no_file_says_so_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_SCAN", 0.5)
    folder = tmp_path / "in"
    old(folder / "first.png")
    os.mkfifo(folder / "pipe.png")
    for name, target in (("nowhere.png", "gone"), ("round.png", "round.png"), ("circle", "circle")):
        (folder / name).symlink_to(target)
    (folder / "photo.heic").write_bytes(b"x")
    with Watched(folder, stop_after_idle=3.0) as watched:
        watched.wait_for(5)
        (folder / "upload.tmp").write_bytes(b"\x89PNG\r\n")  # on its way
        time.sleep(1)
        save(tmp_path / "whole.png").replace(folder / "upload.tmp")
        (folder / "upload.tmp").rename(folder / "uploaded.png")
    expected = ["circle", "first.png", "nowhere.png", "pipe.png", "round.png", "uploaded.png"]
    assert sorted(watched.names) == expected
    messages = {name: text for name, _, text in watched.came}
    assert "a pipe or device, expected an image file" in messages["pipe.png"]
    assert "no such file" in messages["nowhere.png"]
    assert "Too many levels of symbolic links" in messages["round.png"]
    assert watched.source.passed_over.images == {".heic": 1}


def test_results_in_a_folder_above_the_watched_one_do_not_slow_it_down(tmp_path):
    old(tmp_path / "out/in/first.png")
    with Watched(tmp_path / "out/in", without=tmp_path / "out") as watched:
        watched.wait_for(1)
        save(tmp_path / "out/in/second.png")
        closed = time.monotonic()
    assert watched.names == ["first.png", "second.png"]
    assert watched.came[1][1] - closed < 8  # by an event, not found by a scan after ten seconds


@pytest.mark.parametrize("watch", [True, False])
def test_results_among_the_images_are_refused(photos, tmp_path, watch):
    (tmp_path / "link").symlink_to(photos)
    for word, without in ((photos, photos), (tmp_path / "link", photos), (photos, tmp_path / "link")):
        with pytest.raises(InputError, match=r"^output_dir=.*: is the folder of the images itself; choose another"):
            open_source(str(word), watch=watch, without=without)
    if not watch:
        with pytest.raises(InputError, match="is the folder of the images itself"):
            open_source(f"{photos}/**/*.png", without=photos)
