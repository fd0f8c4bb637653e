"""The commands of docs/tutorial.md, run in their order in one shell, on the images that they draw."""

import csv
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from support.brokers import free_port
from support.documents import blocks
from support.paths import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.md"


def script():
    """The blocks of the tutorial in their order, but for those marked as not to be run."""
    lines = ["set -eo pipefail"]
    for block in blocks(TUTORIAL.read_text(encoding="utf-8")):
        if block.language == "bash" and not block.marked:
            lines.append(block.text)
        elif block.language == "python":
            lines.append(f"python - <<'END_OF_PYTHON'\n{block.text}END_OF_PYTHON\n")
    return "\n".join(lines)


@pytest.mark.slow
def test_the_commands_do_what_the_tutorial_says(tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine, which the tutorial asks the server with")
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    programs = str(Path(sys.executable).parent)
    text = script().replace("8000", str(free_port()))
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    with (tmp_path / "inspected" / "predictions.csv").open() as file:
        decisions = {row["path"]: row["decision"] for row in csv.DictReader(file)}
    assert (decisions["gear_stain.png"], decisions["gear_good.png"], len(decisions)) == ("defective", "good", 4)
    (row,) = sqlite3.connect(tmp_path / "line" / "rows.db").execute("SELECT path, decision FROM predictions")
    assert row == ("part-0001.png", "defective")
    assert re.search(r"^gear_stain defective", done.stdout, re.MULTILINE)  # from Python
    assert re.search(r"^part-0001\.png defective$", done.stdout, re.MULTILINE)  # from the data base
    assert '"decision":"defective"' in done.stdout.replace(" ", "")  # the server's answer
    for file in ("report.html", "heatmaps", "mistakes.png", "loss.png", "checkpoints/last.onnx"):
        assert (tmp_path / "runs" / "parts" / file).exists(), file
    assert (tmp_path / "inspected" / "report.html").is_file()
    calibrated = json.loads((tmp_path / "calibrated_wider" / "calibration.json").read_text())
    assert set(calibrated["categories"]) == {"capsule", "circuit", "gear"}
    later = {path.read_bytes() for path in (tmp_path / "new_photos").iterdir()}  # nothing else has seen them
    assert not later & {path.read_bytes() for path in (tmp_path / "drawn").rglob("*.png")}
