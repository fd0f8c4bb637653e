"""`benchmarks/endurance.py`: what it calls a fault, and, for a quarter of a minute, that all of it runs."""

import json
import subprocess
import sys
from collections import defaultdict

import numpy as np
import psutil
import pytest

from support.paths import ROOT


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


FED = {"a.png": [1.0, 2.0], "b.png": [None], "c.png": [3.0]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({}, []),
        ({"a.png": [1.0002, 1.9998]}, []),
        ({"a.png": [1.0]}, ["a.png: fed 2 times, 1 rows"]),
        ({"c.png": [3.0, 3.0]}, ["c.png: fed 1 times, 2 rows"]),
        ({"a.png": [2.0, 1.0]}, ["a.png: rows of another content"]),
        ({"c.png": [3.1]}, ["c.png: rows of another content"]),
        ({"c.png": [None]}, ["c.png: rows of another content"]),
        ({"b.png": [1.0]}, ["b.png: rows of another content"]),
        ({"d.png": [1.0]}, ["d.png: fed 0 times, 1 rows"]),
        ({"b.png": [], "c.png": []}, ["b.png: fed 1 times, 0 rows", "c.png: fed 1 times, 0 rows"]),
    ],
)
def test_every_file_has_to_have_one_row_of_its_content(rows, said):
    from long_runs.journal import faults_of

    found = faults_of(defaultdict(list, FED), defaultdict(list, {**FED, **rows}))
    assert len(found) == len(said)
    assert all(line.startswith(begin) for line, begin in zip(found, said, strict=True))


def curves(minutes=60, **changed):
    """Samples every five seconds: noise, and what is added as a function of the seconds."""
    random, seconds = np.random.default_rng(0), np.arange(0, 60 * minutes, 5.0)
    levels = {
        "memory": 900 + random.normal(0, 3, len(seconds)),
        "descriptors": 9 + random.integers(0, 5, len(seconds)),
        "threads": 12 + random.integers(0, 3, len(seconds)),
        "disk": random.integers(0, 2, len(seconds)),
    }
    columns = [level + changed.get(name, np.zeros_like)(seconds) for name, level in levels.items()]
    return [*zip(seconds, *columns, strict=True)]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"memory": lambda s: -100 * np.exp(-s / 300)}, []),  # what warms up in the first minutes
        ({"memory": lambda s: 40 * s / 3600}, ["resident memory"]),  # 4 kB of each of 10,000 images
        ({"descriptors": lambda s: s // 300}, ["open descriptors"]),
        ({"threads": lambda s: s // 300}, ["threads"]),
        ({"disk": lambda s: 2 * s // 30}, ["disk"]),
    ],
    ids=["flat", "warm-up", "memory", "descriptors", "threads", "disk"],
)
def test_what_grows_is_a_fault(changed, said):
    from long_runs.measuring import faults_of, growth

    found = faults_of(growth(curves(**changed)))
    assert [line.split(":")[0].split(",")[0].split(" beyond")[0] for line in found] == said


HOLDER = """
import sys, tempfile, threading
held = bytearray(80_000_000), [tempfile.TemporaryFile() for _ in range(30)]
for _ in range(5):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("holds", flush=True)
sys.stdin.read()
"""


def test_samples_are_those_of_the_process(tmp_path, monkeypatch):
    from long_runs import measuring

    monkeypatch.setattr(measuring, "EVERY", 0.05)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/rows").write_bytes(b"x" * 5000)
    (tmp_path / "left").write_bytes(b"x" * 2000)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with psutil.Popen([sys.executable, "-c", HOLDER], **pipes) as child:
        assert child.stdout.readline() == b"holds\n"
        sampler = measuring.Sampler(child, lambda: measuring.held_on_disk(tmp_path, without=("kept",)))
        while len(sampler.rows) < 3:
            child.stdin.flush()
        sampler.stop()
        child.stdin.close()
    _, memory, descriptors, threads, disk = sampler.rows[-1]
    assert memory > 80
    assert 33 <= descriptors < 50
    assert threads == 6
    assert disk == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0.1"], "--minutes 0.1: expected at least 0.25"),
        (["--share", "0"], "--share 0.0: expected a part of one core"),
        (["--checkpoint", "last.ckpt"], "expected both, or none"),
        (["--checkpoint", "last.ckpt", "--pictures", "absent"], "absent: holds no PNG file"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_a_line(words, said, monkeypatch, capsys):
    import endurance

    monkeypatch.setattr(sys, "argv", ["endurance.py", "watch", *words])
    with pytest.raises(SystemExit, match="2"):
        endurance.options()
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["predict", "watch", "serve"])
def test_all_of_it_runs(kind, checkpoint, served_tree, tmp_path):
    call = [sys.executable, "benchmarks/endurance.py", kind, "--minutes", "0.25", "--share", "0.5"]
    places = ["--out", tmp_path, "--checkpoint", checkpoint, "--pictures", served_tree]
    done = subprocess.run([*call, *places], cwd=ROOT, capture_output=True, text=True)
    found = json.loads((tmp_path / f"{kind}.json").read_text())
    # In its first minute a process still takes up memory, as caches fill, and its threads come and go with bursts.
    early = ("resident memory", "threads", "open descriptors")
    faults = [line for line in found["faults"] if not line.startswith(early)]
    assert faults == [], done.stderr
    for name in early[1:]:  # one for each of the twelve clients at most
        assert found["curves"][name]["end"] - found["curves"][name]["half_time"] <= 12
    assert done.returncode == bool(found["faults"])
    assert found["counts"].get("rows", found["counts"].get("images")) > 20
    assert json.loads((tmp_path / "endurance.json").read_text()).keys() == {kind}
    assert (tmp_path / "endurance.png").stat().st_size > 10_000
