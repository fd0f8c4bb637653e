"""Run the fast tests under the oldest and newest Python and packages that are claimed; print a Markdown table.

    python scripts/matrix.py [oldest-3.10 ...] [--folder .matrix] [--tests tests/exporting]

Each environment is made by uv from an interpreter on PATH, of the lowest or highest versions of what the package itself
names: several GB, removed after its tests unless some failed. An environment that cannot be made is a row, too. The
exit status is 1 unless all tests of all environments passed.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = {
    "oldest-3.10": ("3.10", ["--resolution", "lowest-direct"]),
    "pinned-3.11": ("3.11", ["--constraint", "constraints.txt"]),
    "newest-3.12": ("3.12", ["--resolution", "highest"]),
    "newest-3.13": ("3.13", ["--resolution", "highest"]),
}
SHOWN = ("torch", "lightning", "hydra-core", "timm", "numpy", "pillow", "onnxruntime")
VERSIONS = f"from importlib.metadata import version as v; print(*(v(n) for n in {SHOWN!r}), sep=' | ')"


def run(*words: str | Path, cwd: Path = ROOT) -> str:
    """The output of a command. Raises CalledProcessError where it fails; what it says of that goes to stderr."""
    return subprocess.run(words, cwd=cwd, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def make(name: str, folder: Path) -> Path:
    """Make the environment; returns its `bin`."""
    python, choice = ENVIRONMENTS[name]
    uv = Path(sys.executable).with_name("uv")
    run(uv, "venv", "--quiet", "--clear", "--seed", "--no-python-downloads", "--python", python, folder)
    run(uv, "pip", "install", "--quiet", "--python", folder / "bin" / "python", *choice, "--editable", ".[dev]")
    return folder / "bin"


def test(binaries: Path, report: Path, tests: Iterable[str]) -> tuple[str, bool]:
    """Run the fast tests: their counts and minutes as text, and whether all passed.

    Raises CalledProcessError where pytest ends without a report.
    """
    report.unlink(missing_ok=True)
    began = time.monotonic()
    done = subprocess.run(
        [binaries / "pytest", "-m", "not slow", "-n2", "--dist=loadfile", f"--junitxml={report}", *tests],
        cwd=ROOT, check=False,
    )  # fmt: skip
    minutes = (time.monotonic() - began) / 60
    if not report.is_file():
        raise subprocess.CalledProcessError(done.returncode, done.args)
    suite = ElementTree.parse(report).getroot()[0]
    total, skipped, *bad = (int(suite.get(key, 0)) for key in ("tests", "skipped", "failures", "errors"))
    passed = total - skipped - sum(bad)
    return f"{passed} passed, {sum(bad)} failed, {skipped} skipped | {minutes:.0f}", done.returncode == 0


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *ENVIRONMENTS])
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix")
    parser.add_argument("--tests", nargs="*", default=["tests"])
    words = parser.parse_args()
    words.folder.mkdir(parents=True, exist_ok=True)
    rows, good = [], True
    for name in words.names or ENVIRONMENTS:
        folder = words.folder / name
        try:
            binaries = make(name, folder)
            versions = run(binaries / "python", "-c", VERSIONS)
            outcome, passed = test(binaries, words.folder / f"{name}.xml", words.tests)
        except subprocess.CalledProcessError as error:
            failed = " ".join(map(str, error.cmd[:3]))
            versions, outcome, passed = " | ".join("" for _ in SHOWN), f"not run: {failed} failed, see above | ", False
        rows.append(f"| {name} | {versions} | {outcome} |")
        good &= passed
        if passed:
            shutil.rmtree(folder)
    header = ("environment", *SHOWN, "tests", "minutes")
    print("", f"| {' | '.join(header)} |", "|" + "---|" * len(header), *rows, sep="\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
