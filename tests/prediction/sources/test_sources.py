"""Where images to inspect come from: files, folders, patterns, lists, standard input, videos, and a folder watched."""

import glob
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from support.memory import alone
from support.sources import Watched, names, old, save
from support.videos import film
from uniad_lightning.data.layouts.listing import is_image
from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.prediction.sources import arrivals, folder_events
from uniad_lightning.prediction.sources import watch_folder as watching
from uniad_lightning.prediction.sources.arrivals import Arrivals, FileState
from uniad_lightning.prediction.sources.folder_walk import walk
from uniad_lightning.prediction.sources.items import Digests
from uniad_lightning.prediction.sources.opening import open_source


@pytest.fixture
def photos(tmp_path):
    """Images at several depths, and what is not to be taken for one."""
    root = tmp_path / "photos"
    for name in ("b.png", "a/2.JPG", "a/10.jpg", "a/deep/x.tif", "a.png", "c [1]/y.bmp", "a/a/2.png"):
        save(root / name)
    for name in (".hidden.png", ".thumbs/t.png", "a/._2.png"):
        save(root / name)
    (root / "notes.txt").write_text("x")
    (root / "empty").mkdir()
    return root


def test_folder_gives_its_images_as_sorted_paths(photos):
    source = open_source(str(photos))
    items = list(source.items)
    expected = sorted(p for p in photos.rglob("*") if is_image(p) and ".thumbs" not in p.parts)
    assert [photos / item.name for item in items] == expected
    assert source.total() == len(expected) == 7
    first = items[0]
    assert first.read().shape == (8, 6, 3)
    assert (first.size, first.mtime_ns) == (expected[0].stat().st_size, expected[0].stat().st_mtime_ns)


def test_folder_is_read_while_it_is_used(photos):
    items = open_source(str(photos)).items
    assert next(items).name == "a/10.jpg"
    save(photos / "z/late.png")
    (photos / "z").rename(photos / "a/deep/w")  # a folder that was not listed yet
    assert "a/deep/w/late.png" in [item.name for item in items]


def test_links_are_followed_but_not_in_circles(photos, tmp_path):
    save(tmp_path / "elsewhere/e.png")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    (photos / "a/round").symlink_to(photos)
    (photos / "nowhere.png").symlink_to(tmp_path / "gone.png")
    found = names(open_source(str(photos)))
    assert "linked/e.png" in found
    assert len(found) == len(set(found)) == 9
    broken = next(item for item in open_source(str(photos)).items if item.name == "nowhere.png")
    with pytest.raises(InputError, match=r"nowhere\.png: no such file"):
        broken.read()


def test_the_folder_of_the_results_is_passed_over(photos):
    save(photos / "runs/predict/overlays/a.png")
    assert len(names(open_source(str(photos), without=photos / "runs/predict"))) == 7
    assert len(names(open_source(str(photos)))) == 8


PATTERNS = "*.png **/*.png **/2.* a/**/*.png **/a/**/*.png a/*/* ?/[0-9]*.jpg **/a/a/* **/*p*/*".split()  # noqa: SIM905


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_matches_as_the_standard_library_does_but_each_image_once(photos, pattern):
    hits = map(Path, glob.glob(str(photos / pattern), recursive=True))
    expected = {path for path in hits if is_image(path) and path.is_file()}
    if not expected:
        with pytest.raises(InputError, match=r"matches no image in .*photos"):
            open_source(str(photos / pattern))
        return
    found = [found.path for found in walk(photos, Path(pattern).parts)]
    assert found == sorted(expected)
    assert names(open_source(str(photos / pattern)))[0] in str(found[0])


def test_pattern_of_folders_means_all_below_them(photos):
    assert names(open_source(f"{photos}/a*")) == ["a/10.jpg", "a/2.JPG", "a/a/2.png", "a/deep/x.tif", "a.png"]
    assert names(open_source(f"{photos}/**")) == names(open_source(str(photos)))


def test_a_folder_may_be_called_like_a_pattern(photos):
    assert names(open_source(f"{photos}/c [1]")) == ["y.bmp"]


def test_one_file_of_any_suffix(tmp_path):
    Image.new("RGB", (4, 3), "red").save(tmp_path / "still.gif")
    (item,) = open_source(str(tmp_path / "still.gif")).items
    assert (item.name, item.read().tolist()[0][0]) == ("still.gif", [255, 0, 0])


def test_list_is_relative_to_its_own_folder(photos, tmp_path):
    listed = photos / "todo.txt"
    listed.write_bytes(b"\xef\xbb\xbf# mine\r\n\r\nb.png\r\n  a/2.JPG  \n" + f"{photos}/a.png\ngone.png\na\n".encode())
    source = open_source(str(listed))
    items = list(source.items)
    assert source.total() == 5
    assert [item.name for item in items] == ["b.png", "a/2.JPG", f"{photos}/a.png", "gone.png", "a"]
    assert all(item.read().shape == (8, 6, 3) for item in items[:3])
    with pytest.raises(InputError, match=r"gone\.png: no such file"):
        items[3].read()
    with pytest.raises(InputError, match=r"photos/a: a folder, expected an image file"):
        items[4].read()


def test_list_with_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9\xff.png")
    save(tmp_path / name)
    (tmp_path / "list.txt").write_bytes(b"caf\xe9\xff.png\na\0b.png\n")
    first, second = open_source(str(tmp_path / "list.txt")).items
    assert first.name == name
    assert first.read().shape == (8, 6, 3)
    with pytest.raises(InputError, match="cannot be accessed"):
        second.read()


def test_list_in_the_encoding_of_western_windows(tmp_path):
    save(tmp_path / "gehäuse 0.png")
    (tmp_path / "list.txt").write_bytes("gehäuse 0.png\r\ngehäuse 1.png\r\n".encode("cp1252"))
    first, second = open_source(str(tmp_path / "list.txt")).items
    assert (first.name, first.read().shape) == ("gehäuse 0.png", (8, 6, 3))
    with pytest.raises(InputError, match=r"no such file, and the list is not in UTF-8; save it as UTF-8") as error:
        second.read()
    assert not isinstance(error.value, TemporaryError)  # trying again would not help


def memory_of_a_list(path):
    items = open_source(str(path)).items
    next(items)
    tracemalloc.start()
    return sum(1 for _ in items), tracemalloc.get_traced_memory()[1]


@pytest.mark.slow
def test_a_long_list_takes_no_memory(tmp_path):
    with (tmp_path / "list.txt").open("w") as file:
        file.writelines(f"folder/image-{i:09d}.png\n" for i in range(50_000))
    count, peak = alone(memory_of_a_list, tmp_path / "list.txt")
    assert count == 49_999
    assert peak < 8 << 20  # the items alone would be 50 MB; Python's table of path names is some of it


STREAM = """
import signal
from uniad_lightning.prediction.sources.opening import open_source
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background without
for item in open_source("-").items:
    print("nothing yet" if item is None else item.name, flush=True)
"""


def test_standard_input_is_taken_as_it_comes(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", STREAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    process.stdin.write("a.png\nb/c.png\nhalf a na")
    process.stdin.flush()
    lines = [process.stdout.readline().strip() for _ in range(6)]
    while lines[0] == "nothing yet":  # before the first line came
        lines = [*lines[1:], process.stdout.readline().strip()]
    assert lines[:2] == ["a.png", "b/c.png"]
    assert set(lines[2:]) == {"nothing yet"}
    rest, _ = process.communicate("me.png\nlast.png", timeout=30)
    assert [line for line in rest.splitlines() if line != "nothing yet"] == ["half a name.png", "last.png"]
    assert process.returncode == 0


def test_interrupt_while_waiting_for_standard_input(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", STREAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "nothing yet\n"
    process.send_signal(2)
    _, errors = process.communicate(timeout=30)
    assert errors.strip().endswith("KeyboardInterrupt")
    assert "Fatal" not in errors


WINDOWS = [
    r"photos\a b.png", r'"photos\c.png"', r'".\d#1.png"', "'e.png'", "#1.png", "# a comment", "", "  f.png  ",
    "g.png ", 'h"i.png', "back\\slash.png", "UPPER.PNG", "upper.png", "gehäuse.png",
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_list_as_windows_and_people_write_it(tmp_path, encoding, newline):
    files = "photos/a b.png photos/c.png d#1.png e.png #1.png f.png"
    names_found = [
        *files.replace("a b", "a_b").split(),
        "g.png ",
        'h"i.png',
        "back\\slash.png",
        "UPPER.PNG",
        "upper.png",
    ]
    names_found[0] = "photos/a b.png"
    for name in names_found:
        with_suffix = save(tmp_path / "any.png")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with_suffix.rename(tmp_path / name)
    save(tmp_path / normalize("NFD", "gehäuse.png"))  # decomposed, as on a Mac
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "list.txt").write_bytes((mark + newline.join([*WINDOWS, ""])).encode(encoding))
    source = open_source(str(tmp_path / "list.txt"))
    items = list(source.items)
    assert source.total() == len(items) == len(WINDOWS) - 2
    assert [item.read().shape for item in items] == [(8, 6, 3)] * len(items)
    assert [item.name for item in items][:3] == ["photos/a b.png", "photos/c.png", "./d#1.png"]
    assert [item.name for item in items][6:9] == ["g.png ", 'h"i.png', "back\\slash.png"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_standard_input_as_windows_writes_it(tmp_path, encoding):
    text = 'photos\\a.png\r\n# no\r\n\r\n"b c.png"\r\nlast.png'.encode(encoding)
    process = subprocess.Popen(
        [sys.executable, "-c", STREAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=False, cwd=tmp_path
    )
    for start in range(0, len(text), 3):  # in parts that end within a mark, a letter and a line
        process.stdin.write(text[start : start + 3])
        process.stdin.flush()
    out, _ = process.communicate(timeout=60)
    assert [line for line in out.decode().splitlines() if line != "nothing yet"] == [
        "photos/a.png",
        "b c.png",
        "last.png",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (r"C:\photos\1.png", r"^C:/photos/1\.png: a path of Windows, not of this system; list paths relative to /"),
        (r"\\server\share\1.png", "^//server/share/1.png: a path of Windows"),
        (r"gone\1.png", "/gone/1.png: no such file"),
        ("http://camera/still.png", "^http://camera/still.png: an address, expected a file"),
        ('"', '/": no such file'),
    ],
)
def test_lines_of_which_there_is_no_file(tmp_path, line, message):
    (tmp_path / "list.txt").write_text(f"{line}\n")
    (item,) = open_source(str(tmp_path / "list.txt")).items
    with pytest.raises(InputError, match=message):
        item.read()


def test_a_number_may_be_a_camera_or_the_name_of_a_file():
    with pytest.raises(InputError, match=r"^input=0: expected an image, a folder, .* camera:0, or a stream .*; quote"):
        open_source(0)


def test_a_device_is_no_image(tmp_path):
    os.mkfifo(tmp_path / "video0")
    for word in ("/dev/null", str(tmp_path / "video0")):
        with pytest.raises(InputError, match=rf"^input={word}: a pipe or device, expected an image, a folder"):
            open_source(word)


def test_standard_input_that_names_nothing(monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        with pytest.raises(InputError, match="the standard input listed no image; expected one path a line"):
            list(open_source("-").items)


@pytest.mark.parametrize(("name", "code"), [("film.mp4", "mp4v"), ("film.AVI", "MJPG")])
def test_video_gives_its_frames_in_rgb(tmp_path, name, code):
    path = film(tmp_path / name, code)
    source = open_source(str(path))
    items = list(source.items)
    assert source.total() == len(items) == 30
    assert [item.name for item in items[:2]] == [f"{name}#000000", f"{name}#000001"]
    assert len({item.key for item in items}) == 30
    assert items[0].size == path.stat().st_size
    for i, item in enumerate(items):  # each keeps its own frame
        image = item.read()
        assert image.shape == (48, 64, 3)
        assert np.abs(image[8:40, 8:24].mean((0, 1)) - (8 * i, 0, 0)).max() < 12
        assert np.abs(image[8:40, 40:56].mean((0, 1)) - (0, 200, 0)).max() < 12


def test_every_nth_frame(tmp_path):
    source = open_source(str(film(tmp_path / "film.mp4", "mp4v")), every=7)
    assert source.total() == 5
    items = list(source.items)
    assert [item.name[-3:] for item in items] == ["000", "007", "014", "021", "028"]
    assert np.abs(items[3].read()[8:40, 8:24].mean((0, 1)) - (168, 0, 0)).max() < 12


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


def test_video_that_breaks_off_says_so_in_a_row(tmp_path):
    items = list(open_source(str(cut(film(tmp_path / "film.avi", "MJPG", frames=60)))).items)
    assert 10 < len(items) < 45
    with pytest.raises(InputError, match=r"film\.avi: breaks off after \d\d of about 60 frames"):
        items[-1].read()


@pytest.mark.parametrize(
    ("name", "content"), [("a.mp4", b"text"), ("part_007.avi", b""), ("b.mkv", b"\x1aE\xdf\xa3" * 100)]
)
def test_what_is_no_video(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^input=.*{name}: cannot be opened as a video \({len(content)} bytes\)"):
        open_source(str(tmp_path / name))


DAMAGED = """
import sys
from uniad_lightning.errors import InputError
from uniad_lightning.prediction.sources.opening import open_source
for path in sys.argv[1:]:
    try:
        print(sum(1 for _ in open_source(path).items) > 3)
    except InputError:
        print("refused")
"""


def test_damaged_videos_make_no_noise(tmp_path):
    whole, headless = cut(film(tmp_path / "film.avi", "MJPG")), cut(film(tmp_path / "film.mp4", "mp4v"))
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED, str(whole), str(headless)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.split(), done.stderr) == (["True", "refused"], "")


def test_frames_too_large_are_refused_at_once(tmp_path):
    path = film(tmp_path / "film.mp4", "mp4v")
    with pytest.raises(InputError, match=r"64 x 48 pixels are 0\.0 megapixels, more than the limit of 0\.003; .*raise"):
        open_source(str(path), max_pixels=3000)


@pytest.mark.parametrize(
    ("word", "settings", "message"),
    [
        ("gone", {}, r"^input=gone: .*/gone does not exist\. Expected an image, a folder, a pattern"),
        ("phots", {}, r"does not exist\. Did you mean 'photos'\?"),
        ("gone.mp4", {}, "does not exist"),
        ("photos/empty", {}, r"^input=photos/empty: the folder holds no image \(\.bmp .*\); give the folder"),
        ("photos/*.webp", {}, r"^input=photos/\*\.webp: matches no image in .*/photos; \*\*"),
        ("gone/*.png", {}, "matches no image in .*/gone"),
        ("photos/none.txt", {}, r"^input=photos/none\.txt: the list has no image; expected one path a line"),
        ("photos", {"every": 2}, "every=2: expected a whole number from 1, and above 1 only for a video"),
        ("photos", {"every": 0}, "every=0: expected a whole number"),
        ("photos", {"stop_after_idle": 3}, "stop_after_idle=3: expected seconds above 0, together with watch=true"),
        ("photos", {"watch": True, "stop_after_idle": 0}, "stop_after_idle=0: expected seconds above 0"),
        ("photos/b.png", {"watch": True}, r"^input=photos/b\.png: watch=true needs an existing folder"),
        ("gone", {"watch": True}, "watch=true needs an existing folder; make it"),
        ("photos", {"max_pixels": 0}, "max_megapixels=0: expected a number above 0"),
        ("", {}, "^input='': expected an image, a folder"),
        (12, {}, "^input=12: expected .* quote a number"),
    ],
)
def test_mistakes_are_told_in_one_line(photos, monkeypatch, word, settings, message):
    (photos / "none.txt").write_text("# nothing\n\n")
    monkeypatch.chdir(photos.parent)
    with pytest.raises(InputError, match=message) as caught:
        open_source(word, **settings)
    assert "\n" not in str(caught.value)


def test_a_folder_that_refuses_is_a_row_and_not_passed_over(photos, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("photos/a"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    items = list(open_source(str(photos)).items)
    assert [item.name for item in items] == ["a", "a.png", "b.png", "c [1]/y.bmp"]
    with pytest.raises(InputError, match=r"photos/a: the folder cannot be listed \(Permission denied\)"):
        items[0].read()
    with pytest.raises(InputError, match=r"^input=.*: the folder cannot be listed \(Permission denied\)"):
        open_source(str(photos / "a"))


def test_a_pipe_does_not_hold_up_everything(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (item,) = open_source(str(tmp_path)).items
    with pytest.raises(InputError, match=r"pipe\.png: a pipe or device, expected an image file"):
        item.read()


def test_digests_are_a_set_of_eight_bytes_each():
    digests = Digests()
    assert all(digests.add(f"part {i}") for i in range(150_000))
    assert not any(digests.add(f"part {i}") for i in range(0, 150_000, 1000))
    assert len(digests) == 150_000
    assert "part 149999" in digests
    assert "part 150000" not in digests
    assert "\udcff" not in digests  # a name that is no text
    assert digests._sorted.nbytes + 100 * len(digests._recent) < 150_000 * 11
    assert (np.diff(digests._sorted.astype(object)) > 0).all()


class Clock:
    """Files that look as `files` says, at a time that a test sets."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        self.files = {}
        monkeypatch.setattr(arrivals.time, "monotonic", lambda: self.now)
        self.arrivals = Arrivals(lambda name: self.files.get(name))

    def after(self, seconds):
        self.now += seconds
        return self.arrivals.take()


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_closed_file_is_whole_a_moment_later_and_a_written_one_when_it_is_closed(clock):
    clock.arrivals.written("a")
    assert clock.after(30) == []
    clock.arrivals.closed("a")
    assert clock.after(0.1) == []
    clock.arrivals.written("a")  # its time is set
    assert clock.after(0.15) == []
    assert clock.arrivals.wait() == pytest.approx(0.05)
    assert clock.after(0.1) == ["a"]
    assert not clock.arrivals
    assert clock.after(100) == []


def test_a_file_that_is_only_seen_is_whole_when_it_stays_as_it_is(clock):
    clock.files = {"a": FileState(5, 1), "empty": FileState(0, 1)}
    for name, now in clock.files.items():
        clock.arrivals.present(name, now)
    clock.files["a"] = FileState(6, 1)
    assert clock.after(1.1) == []
    clock.files["a"] = FileState(6, 2)
    assert clock.after(1.1) == []
    assert clock.after(0.5) == []
    assert clock.after(0.6) == ["a"]
    assert clock.after(5) == []
    assert clock.after(5) == ["empty"]


def test_a_file_whose_closing_is_never_told_is_looked_at_in_the_end(clock):
    clock.files = {"a": FileState(5, 1)}
    clock.arrivals.written("a")
    clock.arrivals.written("gone")
    clock.arrivals.present("a", FileState(5, 1))  # that it is there does not make it whole
    assert clock.after(59) == []
    assert clock.after(2) == []
    assert clock.after(1.1) == ["a"]
    assert not clock.arrivals


def test_a_name_that_was_made_without_being_written_is_a_link_unless_it_is_empty(clock):
    clock.files = {"link": FileState(5, 1), "begun": FileState(0, 1), "slow": FileState(3, 1)}
    for name in clock.files:
        clock.arrivals.created(name)
    clock.arrivals.written("slow")  # has come with the first of its content, and more will follow
    assert clock.after(0.6) == []
    assert clock.after(1.1) == ["link"]
    assert clock.after(30) == []
    clock.arrivals.closed("begun")
    assert clock.after(0.3) == ["begun"]
    assert "slow" in clock.arrivals


@pytest.mark.slow
@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_a_file_that_comes_by_link_is_taken_when_it_is_there(tmp_path, link):
    folder = tmp_path / "in"
    old(folder / "first.png")
    outside = save(tmp_path / "outside.png")
    with Watched(folder, stop_after_idle=8.0) as watched:
        watched.wait_for(1)
        link(outside, folder / "linked.png")
        watched.wait_for(2)
        assert watched.names == ["first.png", "linked.png"]


def test_a_file_of_a_future_time_at_the_start_is_not_taken_while_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "STILL", 3.0)  # longer than this process is held up below
    content = save(tmp_path / "content.png", size=(90, 90)).read_bytes()
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/part.png").open("wb") as file:
        file.write(content[:100])
        file.flush()
        os.utime(file.fileno(), (time.time() + 3600,) * 2)  # by the clock of the machine that writes
        with Watched(tmp_path / "in", stop_after_idle=4.0) as watched:
            time.sleep(0.5)
            file.write(content[100:])
            file.close()
            watched.wait_for(1)
    assert [(name, shape) for name, _, shape in watched.came] == [("part.png", (90, 90, 3))]


@pytest.mark.slow
def test_watching_takes_what_is_there_then_what_comes_soon_and_never_a_part(tmp_path):
    content = save(tmp_path / "content.png", size=(300, 200)).read_bytes()
    folder = tmp_path / "in"
    for name in ("b.png", "a/1.png"):
        old(folder / name)
    closed = {}
    with Watched(folder) as watched:
        watched.wait_for(2)
        with (folder / "slow.png").open("wb") as file:  # pauses are longer than a file must lie still
            for part in range(4):
                file.write(content[part * len(content) // 4 : (part + 1) * len(content) // 4])
                file.flush()
                time.sleep(1.2 if part < 2 else 0.1)
        closed["slow.png"] = time.monotonic()
        save(tmp_path / "outside.png").rename(folder / "outside.png")
        closed["outside.png"] = time.monotonic()
        (folder / "upload.tmp").write_bytes(content)
        time.sleep(0.3)
        (folder / "upload.tmp").rename(folder / "renamed.png")
        closed["renamed.png"] = time.monotonic()
        shutil.copy2(folder / "b.png", folder / "a/copied.png")  # sets the time after it has closed
        closed["a/copied.png"] = time.monotonic()
        save(folder / ".hidden.png")
    assert watched.names[:2] == ["a/1.png", "b.png"]
    assert sorted(watched.names[2:]) == sorted(closed)
    for name, at, shape in watched.came[2:]:
        assert at - closed[name] < 5, name  # by an event, not found by a scan after ten seconds
        assert shape in ((300, 200, 3), (8, 6, 3))


@pytest.mark.slow
def test_watching_a_folder_that_comes_while_it_is_watched(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    save(tmp_path / "lot/1.png")
    save(tmp_path / "lot/x/2.png")
    with Watched(folder, stop_after_idle=3.0) as watched:
        time.sleep(0.5)
        for i in range(20):  # each at once with its folder, before there can be an event
            save(folder / f"new/{i}/deep/part.png")
        (tmp_path / "lot").rename(folder / "lot")
        watched.wait_for(22)
        (folder / "lot").rename(folder / "moved")
    expected = {f"new/{i}/deep/part.png" for i in range(20)} | {"lot/1.png", "lot/x/2.png"}
    assert set(watched.names[:22]) == expected
    assert sorted(watched.names[22:]) == ["moved/1.png", "moved/x/2.png"]  # under other names they are others


def test_a_replaced_file_is_a_new_part_and_a_touched_attribute_is_not(tmp_path):
    folder = tmp_path / "in"
    old(folder / "part.png")
    with Watched(folder) as watched:
        watched.wait_for(1)
        for size in ((20, 20), (30, 30)):
            save(folder / "part.png", size=size)
            watched.wait_for(len(watched.came) + 1)
        (folder / "part.png").chmod(0o600)
        (folder / "part.png").open("ab").close()
    assert [shape for _, _, shape in watched.came] == [(8, 6, 3), (20, 20, 3), (30, 30, 3)]


@pytest.mark.slow
def test_a_file_that_came_just_before_the_start_is_taken_once(tmp_path, monkeypatch):
    monkeypatch.setattr(arrivals, "STILL", 3.0)
    folder = tmp_path / "in"
    content = save(tmp_path / "content.png", size=(90, 90)).read_bytes()
    folder.mkdir()
    with (folder / "begun.png").open("wb") as file:
        file.write(content[:100])
        file.flush()
        save(folder / "whole.png")
        with Watched(folder, stop_after_idle=3.0) as watched:
            for part in range(4):  # goes on under watch
                time.sleep(0.4)
                file.write(content[100 + 40 * part : 140 + 40 * part])
                file.flush()
            time.sleep(3.5)  # longer than a file must lie still
            file.write(content[260:])
            file.close()
    assert sorted((name, shape) for name, _, shape in watched.came) == [
        ("begun.png", (90, 90, 3)),
        ("whole.png", (8, 6, 3)),
    ]


def test_a_file_that_is_gone_again_is_no_part(tmp_path):
    folder = tmp_path / "in"
    old(folder / "first.png")
    with Watched(folder) as watched:
        watched.wait_for(1)
        save(folder / "draft.png").rename(folder / "final.png")
        save(folder / "oops.png").unlink()
    assert watched.names == ["first.png", "final.png"]


def test_of_a_name_that_a_file_had_for_a_moment_nothing_is_kept(tmp_path):
    """A program that writes `draft.png` and renames it would fill the memory in months."""
    old(tmp_path / "first.png")
    watch = watching.Watch(tmp_path, without=None, max_pixels=10**6, idle=1.0)
    items = watch.items()
    assert next(items).name == "first.png"
    save(tmp_path / "draft.png").rename(tmp_path / "final.png")
    assert [item.name for item in items if item is not None] == ["final.png"]
    assert not watch._told


def system_watches():
    """How many folders and files the system watches for this process."""
    kept = [path.read_text() for path in Path("/proc/self/fdinfo").iterdir() if path.exists()]
    return sum(text.count("inotify wd") for text in kept)


@pytest.mark.slow
def test_folders_that_are_moved_out_are_not_watched_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_events, "_MANY", 2)
    monkeypatch.setattr(folder_events, "_OVERLAP", 0.7)
    before, running = system_watches(), threading.active_count()
    folder, away = tmp_path / "in", tmp_path / "out"
    old(folder / "first.png")
    away.mkdir()
    items = open_source(str(folder), watch=True).items
    came = (item.name for item in items if item is not None)
    assert next(came) == "first.png"
    for number in range(5):
        save(folder / f"lot {number}/a.png")
        assert next(came) == f"lot {number}/a.png"
        (folder / f"lot {number}").rename(away / f"lot {number}")
    waited = [item for item, _ in zip(items, range(40), strict=False)]
    assert not any(waited)
    assert system_watches() - before <= 1 + 2  # the folder, and lots of which there are not too many yet
    save(folder / "last.png")
    assert next(came) == "last.png"
    items.close()
    assert system_watches() == before
    assert threading.active_count() == running


@pytest.mark.slow
def test_what_is_not_told_is_found_by_looking(tmp_path, monkeypatch):
    """As on a share that another machine writes to, or after more events than the system keeps."""
    monkeypatch.setattr(folder_events._Handler, "dispatch", lambda self, event: None)
    monkeypatch.setattr(watching, "_SCAN", 0.5)
    folder = tmp_path / "in"
    old(folder / "first.png")
    with Watched(folder, stop_after_idle=4.0) as watched:
        watched.wait_for(1)
        save(folder / "x/second.png")
    assert watched.names == ["first.png", "x/second.png"]


@pytest.mark.slow
def test_without_inotify_it_looks_every_second(tmp_path, monkeypatch, capfd):
    def refuse(*_):
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(folder_events, "_observe", refuse)
    monkeypatch.setattr(arrivals, "STILL", 3.0)
    content = save(tmp_path / "content.png", size=(100, 100)).read_bytes()
    folder = tmp_path / "in"
    old(folder / "first.png")
    with Watched(folder, stop_after_idle=4.0) as watched:
        watched.wait_for(1)
        with (folder / "slow.png").open("wb") as file:
            for part in range(6):
                file.write(content[part * len(content) // 6 : (part + 1) * len(content) // 6])
                file.flush()
                time.sleep(0.4)
        closed = time.monotonic()
    assert [(name, shape) for name, _, shape in watched.came[1:]] == [("slow.png", (100, 100, 3))]
    assert watched.came[1][1] - closed < 9  # not by the scan every ten seconds
    warning = capfd.readouterr().err
    assert "the system does not report new files (inotify watch limit reached); scanning the folder every" in warning


def test_the_watched_folder_may_be_a_link_and_hold_the_results(tmp_path):
    old(tmp_path / "real/first.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with Watched(tmp_path / "link", without=tmp_path / "link/results") as watched:
        watched.wait_for(1)
        save(tmp_path / "real/results/overlays/first.png")
        save(tmp_path / "link/second.png")
    assert watched.names == ["first.png", "second.png"]


def test_a_watched_folder_that_goes_away_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "_SCAN", 0.5)
    old(tmp_path / "in/first.png")
    with Watched(tmp_path / "in", stop_after_idle=30.0) as watched:
        watched.wait_for(1)
        shutil.rmtree(tmp_path / "in")
    assert watched.errors == [f"input={tmp_path / 'in'}: the watched folder was removed; finished rows are kept"]


def test_a_file_that_changes_while_it_is_read_is_not_taken_for_the_old_one(tmp_path):
    old(tmp_path / "part.png")
    items = open_source(str(tmp_path), watch=True, stop_after_idle=2.0).items
    first = next(items)
    save(tmp_path / "part.png", size=(20, 20))
    with pytest.raises(InputError, match=r"part\.png: changed while it was read; it is inspected again"):
        first.read()
    second = next(item for item in items if item is not None)
    assert second.read().shape == (20, 20, 3)
    items.close()


def test_nothing_is_left_running(tmp_path):
    old(tmp_path / "part.png")
    before = threading.active_count()
    items = open_source(str(tmp_path), watch=True).items
    next(items)
    assert threading.active_count() > before
    items.close()
    assert threading.active_count() == before
