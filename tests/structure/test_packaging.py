"""A wheel holds all that the program needs: installed elsewhere, it runs from an empty folder."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import uniad_lightning
from support.paths import ROOT, SOURCE

LENT = Path(sysconfig.get_path("purelib"))  # the third-party packages of the environment that runs the tests
OFFLINE = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check"]

# Read at the start of every Python of the fresh environment: the checkout is out of bounds, but for what it lends.
GUARD = """
import os, sys

def guard(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str):
        path = os.path.join(os.path.realpath(arguments[0]), "")
        if path.startswith({checkout!r}) and not path.startswith({lent!r}):
            print("the checkout was used:", event, path, file=sys.stderr)
            os._exit(99)

sys.addaudithook(guard)
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def contents(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("RECORD")}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive and the wheel, as an index would serve them."""
    folder = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=ROOT)
    run(sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def fresh(built, tmp_path_factory):
    """An environment with the wheel in it, third-party packages lent, and a guard against use of the checkout."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", *OFFLINE, built[1], cwd=folder)
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    (packages / "guard_of_the_checkout.py").write_text(GUARD.format(checkout=f"{ROOT}{os.sep}", lent=f"{LENT}{os.sep}"))
    (packages / "lent.pth").write_text(f"{LENT}\nimport guard_of_the_checkout\n")  # *.pth of LENT itself are not read
    return folder / "bin"


def test_wheel_holds_every_yaml_file_and_the_weights(built):
    held = contents(built[1])
    expected = {f"uniad_lightning/{path.relative_to(ROOT)}": path for path in (ROOT / "conf").rglob("*.yaml")}
    pages = [*(SOURCE / "report" / "templates").iterdir(), SOURCE / "serving" / "page.html"]
    for path in (*SOURCE.rglob("*.py"), *(SOURCE / "weights").iterdir(), *pages):
        expected[f"uniad_lightning/{path.relative_to(SOURCE)}"] = path
    assert len(expected) > 50
    assert {name for name in held if "dist-info" not in name} == expected.keys()
    assert all(held[name] == path.read_bytes() for name, path in expected.items())
    print(f"wheel: {built[1].stat().st_size / 1e6:.1f} MB, source archive: {built[0].stat().st_size / 1e6:.1f} MB")


@pytest.mark.slow
def test_wheel_from_the_source_archive_is_the_same(built, tmp_path):
    run(sys.executable, "-m", "pip", "wheel", *OFFLINE, "--no-build-isolation", "-w", tmp_path, built[0], cwd=tmp_path)
    assert contents(next(tmp_path.glob("*.whl"))) == contents(built[1])


def test_source_archive_holds_nothing_but_sources(built):
    with tarfile.open(built[0]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert {name.split("/")[0] for name in names} == {
        "src", "conf", "pyproject.toml", "constraints.txt", "CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md",
        "PKG-INFO", ".gitignore",
    }  # fmt: skip


def test_a_second_build_is_the_same_byte_for_byte(built, tmp_path):
    """Elsewhere, of files with other times and permissions: what is on an index can be built again and compared."""
    elsewhere = tmp_path / "elsewhere"
    with tarfile.open(built[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    next(tmp_path.iterdir()).rename(elsewhere)
    for path in elsewhere.rglob("*"):
        os.utime(path, (10**9, 10**9))
        path.chmod(0o700 if path.is_dir() else 0o600)
    for kind, first in zip(("sdist", "wheel"), built, strict=True):
        run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(tmp_path / "second"), cwd=elsewhere)
        assert (tmp_path / "second" / first.name).read_bytes() == first.read_bytes(), kind


def test_fresh_environment_has_its_own_copy(fresh, tmp_path):
    where = "import uniad_lightning as u, importlib.metadata as m; print(u.__file__, m.version('uniad-lightning'))"
    file, version = run(fresh / "python", "-c", where, cwd=tmp_path).split()
    assert Path(file).is_relative_to(fresh.parent)
    assert version == uniad_lightning.__version__
    assert run(fresh / "uniad", "--version", cwd=tmp_path) == f"uniad-lightning {version}\n"


def test_guard_notices_use_of_the_checkout(fresh, tmp_path):
    done = subprocess.run([fresh / "python", "-c", f"open({str(ROOT / 'README.md')!r})"], check=False)
    assert done.returncode == 99


@pytest.mark.slow
def test_demo_runs_from_an_empty_folder(fresh, tmp_path):
    few = ["data.prepare.train_images=4", "data.prepare.test_good=1", "data.prepare.test_per_defect=1"]
    run(fresh / "uniad", "train", "experiment=demo", "trainer=smoke", "output_dir=run", *few, cwd=tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert len(metrics["categories"]) == 6
    assert (tmp_path / "data" / "synthetic").is_dir()
    run(fresh / "uniad", "evaluate", "ckpt_path=run/checkpoints/last.ckpt", "output_dir=again", cwd=tmp_path)
    assert json.loads((tmp_path / "again" / "metrics.json").read_text())["mean"] == metrics["mean"]
