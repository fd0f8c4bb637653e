"""Kept tensors: made once for each name, by whichever process is first; damage and interruptions."""

import subprocess
import sys
import time

import pytest
import torch

from uniad_lightning.errors import InputError
from uniad_lightning.files.kept import kept

ABOUT = {"backbone": "resnet18", "size": [64, 64], "rate": 0.1}


def counting(made):
    def make():
        made.append(torch.arange(3.0) + len(made))
        return {"a": made[-1]}

    return make


def test_they_are_made_once_for_each_name(tmp_path):
    made = []
    first, none = kept(tmp_path / "new/folder", ABOUT, counting(made))
    again, path = kept(tmp_path / "new/folder", dict(reversed(ABOUT.items())), counting(made))
    assert (len(made), none) == (1, None)
    assert path.is_file()
    assert torch.equal(first["a"], again["a"])
    kept(tmp_path / "new/folder", {**ABOUT, "rate": 0.2}, counting(made))
    assert len(made) == 2
    assert len([*(tmp_path / "new/folder").glob("*.pt")]) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError("the loss is nan")])
def test_an_interrupted_one_leaves_nothing_and_is_made_by_the_next(tmp_path, error):
    def fails():
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        kept(tmp_path, ABOUT, fails)
    assert not [*tmp_path.glob("*.pt")]
    made = []
    kept(tmp_path, ABOUT, counting(made))
    assert len(made) == 1


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another's"])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, damage):
    kept(tmp_path, ABOUT, counting([]))
    (path,) = tmp_path.glob("*.pt")
    content = bytearray(path.read_bytes())
    if damage == "another's":
        kept(tmp_path, {**ABOUT, "rate": 0.2}, counting([]))
        (other,) = set(tmp_path.glob("*.pt")) - {path}
        content = other.read_bytes()
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
    else:
        content = content[: {"cut": len(content) // 2, "empty": 0}[damage]]
    path.write_bytes(content)
    made = []
    with pytest.raises(InputError, match=r"\.pt: .*or delete it, and it is made again$") as error:
        kept(tmp_path, ABOUT, counting(made))
    assert "\n" not in str(error.value)
    assert not made
    path.unlink()
    kept(tmp_path, ABOUT, counting(made))
    assert len(made) == 1


def test_where_nothing_can_be_written_they_are_made_each_time(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    made = []
    for _ in range(2):
        assert kept(tmp_path / "file" / "folder", ABOUT, counting(made))[1] is None
    assert len(made) == 2
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 2
    assert all(line.startswith("uniad: warning: ") and "cannot be written" in line for line in warnings)


def test_on_a_full_disk_they_are_used_and_not_kept(small_disk, capsys):
    found, path = kept(small_disk, ABOUT, lambda: {"a": torch.zeros(3_000_000)})
    assert (len(found["a"]), path) == (3_000_000, None)
    assert not [file for file in small_disk.iterdir() if file.suffix != ".lock"]
    assert "cannot be written; No space left on device" in capsys.readouterr().err


PROGRAM = """
import sys, time, pathlib, torch
from uniad_lightning.files.kept import kept

folder = pathlib.Path(sys.argv[1])

def make():
    (folder / f"made by {sys.argv[2]}").touch()
    while sys.argv[2] == "the killed one" or not (folder / "go").exists():
        time.sleep(0.02)
    return {"a": torch.tensor(float(sys.argv[2]))}

print(float(kept(folder / "kept", {"x": 1}, make)[0]["a"]))
"""


def started(folder, name):
    return subprocess.Popen([sys.executable, "-c", PROGRAM, folder, name], stdout=subprocess.PIPE, text=True)


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited for two minutes"
        time.sleep(0.05)


@pytest.mark.slow
def test_processes_that_ask_at_the_same_time_get_the_same_ones_also_after_a_kill(tmp_path):
    killed = started(tmp_path, "the killed one")
    wait_for((tmp_path / "made by the killed one").exists)
    others = [started(tmp_path, str(number)) for number in range(3)]
    killed.kill()
    killed.wait()
    (tmp_path / "go").touch()
    answers = [other.communicate(timeout=120)[0].strip() for other in others]
    assert len(set(answers)) == 1
    assert answers[0] in ("0.0", "1.0", "2.0")
    assert len([*tmp_path.glob("made by [0-9]")]) == 1
