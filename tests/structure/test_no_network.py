"""Training, calibration, prediction and export speak with nobody, and leave no device's number behind."""

import os
import subprocess
import sys

import pytest

from support.paths import SOURCE
from support.settings import SMALL, UNIAD

pytestmark = pytest.mark.slow

# In every Python process that finds it: a connection to anywhere but this machine fails, and is written down.
GUARD = """
import errno, os, socket

def guarded(owner, name, host_of):
    real = getattr(owner, name)
    def call(*given, **named):
        host = host_of(*given, **named)
        if isinstance(host, bytes):
            host = host.decode()
        if host and host not in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", socket.gethostname()):
            with open(os.environ["NETWORK_LOG"], "a") as log:
                log.write(f"{name} {host}\\n")
            raise OSError(errno.ENETUNREACH, f"guarded: {name} {host}")
        return real(*given, **named)
    setattr(owner, name, call)

def of_address(sock, *given):
    return given[-1][0] if sock.family in (socket.AF_INET, socket.AF_INET6) else None

for name in ("connect", "connect_ex", "sendto"):
    guarded(socket.socket, name, of_address)
for name in ("getaddrinfo", "gethostbyname"):
    guarded(socket, name, lambda host, *given, **named: host)
"""
COMMANDS = """
import sys
from uniad_lightning.command_line.cli import run_command
folder, tree, *small = sys.argv[1:]
ckpt = f"ckpt_path={folder}/run/checkpoints/last.ckpt"
for name, *words in (
    ("train", *small, f"data.root={tree}", f"output_dir={folder}/run", "data.held_out=0.2", "data.num_workers=1",
     "trainer.max_epochs=1", "data.augmentation.flip=0.5", "logger=[csv,mlflow]"),
    ("calibrate", ckpt, f"output_dir={folder}/calibrated"),
    ("predict", ckpt, f"input={tree}/bottle/test", f"output_dir={folder}/predicted"),
    ("export", ckpt, f"output_dir={folder}/exported", "precision=fp16"),
):
    if run_command(name, words):
        sys.exit(f"{name} failed")
"""
ASKING = "import socket\ntry:\n    socket.{call}\nexcept OSError as error:\n    print(error)\n"


@pytest.fixture
def guarded(tmp_path):
    """The environment of a process without network and with a home of its own, and where its attempts are written."""
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(GUARD)
    mine = ("ORT_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME")
    mine += ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_TRACKING_URI")
    mine += ("PYTEST_CURRENT_TEST", "PYTEST_VERSION", "CI")  # with which MLflow is silent by itself
    kept = {name: value for name, value in os.environ.items() if name not in mine}
    log, home = tmp_path / "network.log", tmp_path / "home"
    home.mkdir()
    paths = os.pathsep.join([str(tmp_path / "guard"), str(SOURCE.parent)])
    return {**kept, "PYTHONPATH": paths, "NETWORK_LOG": str(log), "HOME": str(home)}, log, home


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("create_connection(('192.0.2.1', 80))", "getaddrinfo 192.0.2.1"),
        ("socket().connect(('192.0.2.1', 80))", "connect 192.0.2.1"),
        ("socket().connect_ex(('192.0.2.1', 80))", "connect_ex 192.0.2.1"),
        ("socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 80))", "sendto 192.0.2.1"),
        ("getaddrinfo(b'example.org', 443)", "getaddrinfo example.org"),
    ],
)
def test_the_guard_guards(guarded, call, said):
    environment, log, _ = guarded
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ASKING.format(call=call)!r}])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"guarded: {said}" in done.stdout
    assert log.read_text() == f"{said}\n"


def test_the_doctor_asks_nobody(guarded):
    environment, log, _ = guarded
    done = subprocess.run([UNIAD, "doctor"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not log.exists(), log.read_text()


def test_nothing_speaks_with_the_network(guarded, tree, tmp_path):
    environment, log, home = guarded
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, str(tmp_path), str(tree), *SMALL],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mlflow.db").is_file()
    assert not log.exists(), log.read_text()
    left = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert not [name for name in left if any(word in name.lower() for word in ("onnx", "microsoft", "deviceid"))]
