"""Every command, ended at any point in any way, goes on or says what to do, and its result is that of one never ended.

An end that fails is made again by its number: pytest tests/command_line/test_ended_commands.py -k "goes_on and 17".
"""

import re
import subprocess

import pytest

from support.ended_commands import COMMANDS, result_of, same
from support.ends import Point, draw, run

DISK = 48  # MB
FEW = [*COMMANDS][:7] + ["train", "predict", "train", "calibrate", "train"]
# How often each is among the many: most where there is most to lose, few where one takes long.
OFTEN = {
    "train": 14,
    "predict": 7,
    "calibrate": 5,
    "evaluate": 5,
    "watch": 4,
    "cache": 2,
    "sweep": 2,
    "search": 1,
    "export": 1,
}
MANY = [name for name, times in OFTEN.items() for _ in range(times)]


@pytest.fixture
def disk(tmp_path):
    """Mounts a small file system at a folder; skips the test where that is not allowed."""
    mounted = []

    def mount(folder):
        folder.mkdir(parents=True)
        words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}m", "tmpfs", folder]
        if subprocess.run(words, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


# A signal to terminate that comes in a loop of Lightning ends it after its batch as an interrupt does; not after the
# last one.
STATUS = {"kill": {-9}, "terminate": {-15, 130}, "interrupt": {130}, "memory": None, "disk": {0, 1, 2}}


def last_line(printed):
    return [line for line in re.split(r"[\r\n]+", printed) if line.strip()][-1]


def check_end(point, ended):
    """That a command which was ended says so in one line, where it can say anything."""
    expected = STATUS[point.way]
    if ended.status == 0 and (point.delay or point.way in ("terminate", "disk", "memory")):
        return  # it was done before, or needed no more
    assert expected is None or ended.status in expected, ended.printed
    # Without memory Python, torch and the system's threads fail in ways of their own.
    assert "Traceback" not in ended.printed or point.way == "memory", ended.printed
    if ended.status == 130:
        assert ("uniad: interrupted" if point.delay else "uniad: interrupted; ") in ended.printed, ended.printed
    if point.way == "disk" and ended.status:
        assert re.search("uniad: .*(full|room|No space)", ended.printed), ended.printed


def goes_on(bench, name, out):
    """Call the command again; where it refuses, do what its one line says."""
    more = COMMANDS[name].more
    ended = run(bench.words(name, out, more), out)
    if ended.status == 2:
        line = last_line(ended.printed)
        assert line.startswith("uniad: "), ended.printed
        if "already holds a finished run" in line or "is there already" in line:
            return  # whole, as the comparison shows
        assert "overwrite=true" in line, ended.printed
        ended = run(bench.words(name, out, f"{more} overwrite=true"), out)
    assert ended.status == 0, ended.printed


def left_after(bench, disk, tmp_path, name, seed):
    """Ends a command, goes on, and compares what it has made; returns the unfinished files that are left."""
    result, counts = bench.whole(name)
    point = draw(seed, counts)
    place = tmp_path / "place"
    if point.way == "disk":
        disk(place)
    out = place / "out"
    ended = run(bench.words(name, out), out, point, trace=name != "export")
    (place / "filler").unlink(missing_ok=True)
    print(f"{name}: {point}, status {ended.status}")  # shown where the test fails
    check_end(point, ended)
    goes_on(bench, name, out)
    same(result_of(name, out), result)
    return [path for path in out.rglob(".*tmp*") if not path.name.startswith(".about.json")]  # goes with its store


@pytest.mark.parametrize("number", range(len(FEW)))
def test_a_command_that_is_ended_goes_on(bench, disk, tmp_path, number):
    assert left_after(bench, disk, tmp_path, FEW[number], number) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(FEW), 200))
def test_a_command_that_is_ended_anywhere_goes_on(bench, disk, tmp_path, number):
    assert left_after(bench, disk, tmp_path, MANY[7 * number % len(MANY)], number) == []


@pytest.mark.slow
@pytest.mark.parametrize("last", range(10))
@pytest.mark.parametrize(("name", "mark"), [("calibrate", "calibration.json"), ("evaluate", "metrics.json")])
def test_what_counts_as_finished_has_all_its_files(bench, tmp_path, name, mark, last):
    result, counts = bench.whole(name)
    out = tmp_path / "place/out"
    run(bench.words(name, out), out, Point("kill", "write", counts["write"] - last, 0.0))
    assert not (out / "run" / mark).is_file() or result_of(name, out)["files"] == result["files"]
