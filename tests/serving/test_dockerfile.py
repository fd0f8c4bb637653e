"""`scripts/Dockerfile`, as far as it can be checked without a Docker daemon: nobody has built the image here."""

import json
import re
import shlex
import socket
import subprocess
import sys
import zipfile

import pytest

from support.paths import ROOT

DOCKERFILE = ROOT / "scripts" / "Dockerfile"
KNOWN = {"FROM", "ARG", "ENV", "RUN", "COPY", "USER", "WORKDIR", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions():
    """The instructions by line, each (name, rest)."""
    text = re.sub(r"(?m)^#.*\n", "", DOCKERFILE.read_text()).replace("\\\n", " ")
    return [tuple(line.split(" ", 1)) for line in text.splitlines() if line.strip()]


def the(name):
    found = [rest for instruction, rest in instructions() if instruction == name]
    assert len(found) == 1, name
    return found[0]


def test_its_instructions_are_docker_s_and_it_does_not_run_as_root():
    names = [name for name, _ in instructions()]
    assert names[0] == "FROM"
    assert set(names) <= KNOWN
    assert names.index("USER") > max(place for place, name in enumerate(names) if name == "RUN")
    for command in (rest for name, rest in instructions() if name == "RUN"):
        subprocess.run(["sh", "-n", "-c", command], check=True)  # reads it, and runs nothing
    assert json.loads(the("ENTRYPOINT"))[:2] == ["uniad", "serve"]


def test_its_entry_refuses_to_begin_without_a_token(uniad, monkeypatch):
    monkeypatch.delenv("UNIAD_SERVE_TOKEN", raising=False)
    words = [*json.loads(the("ENTRYPOINT"))[2:], *json.loads(the("CMD"))]
    status, _, err = uniad("serve", *words)
    assert status == 2
    assert "host=0.0.0.0: other machines could reach it, and there is no token" in err
    monkeypatch.setenv("UNIAD_SERVE_TOKEN", "s3cret")
    status, _, err = uniad("serve", *words, "port=0")
    assert status == 2
    assert "/models/last.ckpt" in err  # is not there, outside of a container


def test_its_health_check_tells_a_server_from_none(server):
    command = json.loads(the("HEALTHCHECK").split("CMD ", 1)[1])
    assert command[:2] == ["python", "-c"]
    port = server.url.rsplit(":", 1)[1]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        closed = str(silent.getsockname()[1])
    for tried, status in ((port, 0), (closed, 1)):
        code = command[2].replace(":8000/", f":{tried}/")
        assert subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False).returncode == status


@pytest.mark.slow
def test_the_wheel_it_copies_has_the_extras_it_installs(tmp_path):
    source = next(rest for name, rest in instructions() if name == "COPY").split()[0]
    commands = re.findall(r"(?m)^#   (python -m pip wheel.*)$", DOCKERFILE.read_text())
    words = shlex.split(commands[0].replace(" dist ", f" {tmp_path}/dist "))
    subprocess.run([sys.executable, *words[1:], "--no-build-isolation", "--no-index", "--quiet"], cwd=ROOT, check=True)
    wheels = list(tmp_path.glob(source))
    assert len(wheels) == 1
    extras = re.search(r"\.whl\)\[([\w,]+)\]", DOCKERFILE.read_text())[1].split(",")
    with zipfile.ZipFile(wheels[0]) as archive:
        about = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
        assert "uniad_lightning/serving/page.html" in archive.namelist()
    assert set(extras) <= set(re.findall(r"(?m)^Provides-Extra: (.+)$", about))
    assert f"!{source}".replace("uniad_lightning-", "") in DOCKERFILE.with_name("Dockerfile.dockerignore").read_text()
