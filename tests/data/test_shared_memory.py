"""A container's small /dev/shm: fewer processes load images, instead of one that the system kills."""

import os
import shutil
import subprocess
import sys

import pytest

from support.paths import SOURCE
from support.settings import QUICK
from uniad_lightning.data.shared_memory import FOLDER, workers_with_room


def test_room_for_all_of_some_and_of_none(capsys):
    if not os.path.isdir(FOLDER):
        pytest.skip("no shared memory in a folder here")
    free = os.statvfs(FOLDER).f_bavail * os.statvfs(FOLDER).f_frsize
    assert workers_with_room(0, 10**18) == 0
    assert workers_with_room(3, 1) == 3
    assert capsys.readouterr().err == ""
    assert workers_with_room(3, free // 3) == 1
    assert "room for the batches of 1 of 3 loading processes" in capsys.readouterr().err
    assert workers_with_room(3, 10**18) == 0


@pytest.mark.slow
def test_a_training_where_shared_memory_has_no_room(tree, tmp_path):
    program = "from uniad_lightning.command_line.cli import main; import sys; sys.argv[0] = 'uniad'; main()"
    mounted = f'mount -t tmpfs -o size=100k tmpfs {FOLDER} && exec "$@"'
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no file system of one process alone can be made here")
    words = [*QUICK, "data.num_workers=1", f"data.root={tree}", f"output_dir={tmp_path}/run", "data.cache=off"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mounted, "sh", sys.executable, "-c", program, "train", *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "room for the batches of 0 of 1 loading processes" in done.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
