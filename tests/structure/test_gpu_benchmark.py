"""`make bench-gpu` in its reduced form, on the CPU: every check of it runs."""

import json
import subprocess
import sys

import pytest

from support.paths import ROOT


@pytest.mark.slow
def test_every_check_runs_on_a_cpu(tmp_path):
    call = [sys.executable, "benchmarks/gpu.py", str(tmp_path / "gpu"), "--device", "cpu", "--small"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu" / "gpu.json").read_text())
    assert [*found][2:] == ["features", "steps", "trainings", "repeated", "predict"]
    assert (found["repeated"]["again"], found["repeated"]["process_group"]) == (0, 0)
    assert found["predict"]["images_per_second with start, overlays=all, precision=fp32"] > 0
    assert found["trainings"]["bf16-mixed"].keys() == found["trainings"]["32-true"].keys()
