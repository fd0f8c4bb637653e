"""`benchmarks/beside_public.py`: what it calls different, and what it says of a folder that is no clone."""

import importlib.util
import subprocess
import sys

import pytest
import torch

from support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "beside_public.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("beside_public", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("change", "near"),
    [(0.0, True), (5e-5 * 4, True), (2e-4 * 4, False), (float("nan"), False)],
    ids=["equal", "near", "far", "NaN"],
)
def test_differences_count_relative_to_the_largest_value(script, capsys, change, near):
    theirs = torch.tensor([1.0, -4.0])
    ours = theirs + torch.tensor([change, 0.0])
    assert script.report([("other", theirs, theirs), ("map", ours, theirs), ("score", theirs, theirs)]) is near
    marked = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert marked == ([] if near else ["map"])


def test_outputs_of_two_shapes_are_not_stretched_to_one(script):
    with pytest.raises(SystemExit, match="shapes differ"):
        script.report([("map", torch.ones(1, 4), torch.ones(4))])


def test_every_system_has_its_file(script):
    files = {path.stem for path in (SCRIPT.parent / "public").glob("*.py")} - {"common"}
    assert files == script.SYSTEMS.keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "words"),
    [("absent", "is no folder"), ("", "model_unet: cannot be imported")],
    ids=["absent", "no clone"],
)
def test_what_is_no_clone_is_said_in_a_line(tmp_path, folder, words):
    call = [sys.executable, str(SCRIPT), "draem", str(tmp_path / folder)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert words in done.stderr
    assert "VitjanZ/DRAEM" in done.stderr
    assert "Traceback" not in done.stderr
