"""Files written whole: the old content or the new one, nothing beside them, in one place of the package."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import SOURCE
from uniad_lightning.files.atomic import remove_left, renaming, replacing, temporary_path, write_whole


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    return path


def test_a_file_is_replaced_and_nothing_stays_beside_it(file):
    for content in (b"new", memoryview(b"newer"), b""):
        write_whole(file, content)
        assert file.read_bytes() == content
        assert os.listdir(file.parent) == [file.name]


def test_the_temporary_file_is_hidden_beside_the_file_and_of_this_process_alone(file):
    with replacing(file) as temporary:
        assert temporary == file.with_name(f".last.ckpt.{os.getpid()}.tmp") == temporary_path(file)
        temporary.write_bytes(b"new")
        assert file.read_bytes() == b"old"
    assert temporary_path(file, ".pt2") == file.with_name(f".last.ckpt.{os.getpid()}.tmp.pt2")


def test_a_given_temporary_file_is_renamed(file, tmp_path):
    with renaming(tmp_path / "draft", file):
        (tmp_path / "draft").write_bytes(b"new")
    assert (file.read_bytes(), os.listdir(tmp_path)) == (b"new", [file.name])


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), ValueError("no")])
def test_after_an_error_or_interrupt_the_old_file_is_there_alone(file, error):
    def write():
        with replacing(file) as temporary:
            temporary.write_bytes(b"ne")
            raise error

    with pytest.raises(type(error)) as caught:
        write()
    assert caught.value is error
    assert (file.read_bytes(), os.listdir(file.parent)) == (b"old", [file.name])


def test_a_file_that_was_not_written_leaves_the_old_one(file):
    with pytest.raises(FileNotFoundError), replacing(file):
        pass
    assert file.read_bytes() == b"old"


def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "taken", b"new")
    assert os.listdir(tmp_path) == ["taken"]


def test_the_error_of_writing_is_raised_also_where_the_temporary_file_cannot_be_removed(file, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OSError, match="full"), replacing(file):
        raise OSError(errno.ENOSPC, "full")


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "gone" / "a.txt", b"x")
    assert Path(caught.value.filename).parent == tmp_path / "gone"


def test_no_other_place_names_a_temporary_file_or_renames_one():
    # A folder is renamed as a whole by the synthetic data set alone.
    writes = re.compile(r"getpid\(\)\}\.tmp|os\.(replace|rename)\(|\.rename\(|(temporary|unfinished)\.replace\(")
    found = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if writes.search(path.read_text())}
    assert found == {"files/atomic.py", "data/synthetic/dataset.py"}


KILLED = """
import os, signal, sys
from pathlib import Path
from uniad_lightning.files.atomic import replacing
with replacing(Path(sys.argv[1]), sys.argv[2]) as temporary:
    temporary.write_bytes(b"ne")
    print(os.getpid(), flush=True)
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def writer(file, suffix, fate):
    words = [sys.executable, "-c", KILLED, str(file), suffix, fate]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    return process


@pytest.mark.parametrize("suffix", ["", ".pt2"])
def test_what_a_killed_process_has_left_is_removed_and_of_a_running_one_nothing(file, suffix):
    writer(file, suffix, "killed").communicate()
    other = file.with_name(".other.ckpt.1.tmp")
    other.write_bytes(b"of another file")
    running = writer(file, suffix, "runs")
    assert len(os.listdir(file.parent)) == 4
    remove_left([file, file.parent / "absent" / "x"])
    assert sorted(os.listdir(file.parent)) == [f".last.ckpt.{running.pid}.tmp{suffix}", other.name, file.name]
    running.communicate()
    assert (file.read_bytes(), sorted(os.listdir(file.parent))) == (b"ne", [other.name, file.name])


def test_the_content_is_on_the_disk_before_the_name_and_the_name_after_it(file, monkeypatch):
    synced = []
    fsync = os.fsync

    def noted(opened):
        fsync(opened)
        synced.append((os.fstat(opened).st_ino, file.read_bytes()))

    monkeypatch.setattr(os, "fsync", noted)
    write_whole(file, b"new")
    assert synced == [(file.stat().st_ino, b"old"), (file.parent.stat().st_ino, b"new")]
