"""Without a standard input, as under some schedulers, every command works as with an empty one."""

import os
import subprocess
import sys

import pytest

from support.paths import SOURCE
from support.settings import QUICK

PROGRAM = "from uniad_lightning.command_line.cli import main; import sys; sys.argv[0] = 'uniad'; main()"


def without_input(*words):
    return subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_a_training_and_a_prediction_without_a_standard_input(tree, tmp_path):
    words = [*QUICK, f"data.root={tree}", f"output_dir={tmp_path}/run", "data.num_workers=1", "data.cache=off"]
    done = without_input("train", *words)
    assert done.returncode == 0, done.stderr
    ckpt = f"ckpt_path={tmp_path}/run"
    done = without_input("predict", ckpt, "input=-", f"output_dir={tmp_path}/none", "device=cpu")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    done = without_input("predict", ckpt, f"input={tree}/bottle/test/good", f"output_dir={tmp_path}/p", "device=cpu")
    assert done.returncode == 0, done.stderr
