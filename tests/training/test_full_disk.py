"""What the system refuses is told as what it is; a full disk ends a command in one line and spoils nothing."""

import errno
import os
from pathlib import Path

import pytest
import torch

from support.settings import SMALL
from uniad_lightning.command_line.error_messages import explain
from uniad_lightning.command_line.parsing import CommandLine
from uniad_lightning.errors import InputError
from uniad_lightning.training.checkpoint import AtomicCheckpointIO, load_checkpoint, update_checkpoint

LINE = CommandLine("train", "conf", None, [], [])
SAID = {
    "ENOSPC": "disk is full",
    "EDQUOT": "quota",
    "EFBIG": "ulimit -f",
    "EROFS": "can only be read",
    "EACCES": "permissions",
    "EPERM": "permissions",
    "ENAMETOOLONG": "shorter",
    "EMFILE": "too many files",
    "ENFILE": "too many files",
    "EIO": "fails",
    "EISDIR": "is a folder",
    "ENOTDIR": "is a file",
    "ENOENT": "spelling",
    "ELOOP": "circle",
    "ESTALE": "share",
    "ETXTBSY": "another program",
    "EBUSY": "another program",
    "ENOMEM": "memory",
}
NAMELESS = {"ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM", "ESTALE"}


@pytest.mark.parametrize("kind", SAID)
def test_each_error_of_the_system_is_told_as_what_it_is(kind):
    number = getattr(errno, kind)
    line = explain(OSError(number, os.strerror(number), "a/file"), "train", LINE)
    assert line.startswith(f"a/file: {os.strerror(number)}; ")
    assert SAID[kind] in line
    assert ("permissions" in line) == (kind in ("EACCES", "EPERM"))
    nameless = explain(OSError(number, os.strerror(number)), "train", LINE)
    assert nameless == (line.removeprefix("a/file: ") if kind in NAMELESS else None)


def test_one_without_advice_is_told_all_the_same_and_a_fault_of_ours_is_not():
    number = errno.EPROTO
    assert explain(OSError(number, "Protocol error", "x"), "train", LINE) == "x: Protocol error"
    assert explain(OSError("something"), "train", LINE) is None
    assert explain(ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "train", LINE) is None


def test_a_real_full_device_is_explained():
    with pytest.raises(OSError, match="No space") as met, Path("/dev/full").open("wb", buffering=0) as file:
        file.write(b"x")
    assert "the disk is full" in explain(met.value, "train", LINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "named"),
    [("x" * 300, "choose a shorter name"), ("file/run", "a part of the path is a file"), ("loop/run", "form a circle")],
)
def test_a_folder_that_cannot_be_made_is_told_as_what_it_is(uniad, tree, tmp_path, where, named):
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={tmp_path}/{where}")
    assert status == 2
    assert named in err.splitlines()[-1]
    assert "permissions" not in err


def content(megabytes):
    return {"config": {}, "state_dict": {"weights": torch.arange(megabytes << 18).float()}, "loops": {"a": 1}}


def test_a_checkpoint_that_finds_no_room_leaves_the_old_one(small_disk):
    path = small_disk / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1), path)
    before = path.read_bytes()
    line = rf"{path}: cannot be written and is unchanged, continue with ckpt_path=.*; No space left .* the disk is full"
    with pytest.raises(InputError, match=line):
        AtomicCheckpointIO().save_checkpoint(content(6), path)
    with pytest.raises(InputError, match=line):
        update_checkpoint(str(path), more=torch.zeros(6 << 18))
    assert path.read_bytes() == before
    assert os.listdir(small_disk) == ["last.ckpt"]
    with pytest.raises(InputError, match=r"new\.ckpt: cannot be written; No space left"):
        AtomicCheckpointIO().save_checkpoint(content(6), small_disk / "new.ckpt")
    assert torch.equal(load_checkpoint(str(path))["state_dict"]["weights"], content(1)["state_dict"]["weights"])


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 60, 500, 1000, 1500, 2000])
def test_a_training_into_a_full_disk_ends_in_one_line(uniad, tree, small_disk, free):
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (4000 - free) << 10)
    status, _, err = uniad("train", *SMALL, f"data.root={tree}", f"output_dir={small_disk}/run", "trainer.max_epochs=1")
    if status == 0:
        assert (small_disk / "run" / "metrics.json").is_file()
        return
    assert status == 2, err
    assert "Traceback" not in err
    assert "the disk is full" in err.splitlines()[-1]
