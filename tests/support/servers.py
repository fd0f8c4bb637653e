"""`uniad serve` on a free port of this machine: in a process of its own, or, which is sooner there, in a thread."""

import os
import signal
import subprocess
import threading
import time

import httpx
import uvicorn
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from support.configs import CONF
from support.settings import UNIAD
from uniad_lightning.serving.app import create_app
from uniad_lightning.serving.served_model import ServedModel
from uniad_lightning.serving.server import config_of
from uniad_lightning.serving.settings import settings_of


class Asking:
    """What tests ask of a server at `url`, which may want a `token`."""

    def __init__(self, url, token=None):
        self.url = url
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.client = httpx.Client(base_url=url, timeout=60, headers=headers, limits=httpx.Limits(max_connections=200))

    def predict(self, path, **more):
        """The result of one image."""
        answer = self.post(path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()["images"][0]

    def post(self, path, **more):
        return self.client.post("/predict", content=path.read_bytes(), headers={"Content-Type": "image/png"}, **more)

    def metric(self, name):
        """The value of a metric as the text has it, such as `uniad_requests_total{status="200"}`; 0 without."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.end()


class Server(Asking):
    """The command in a process; `lines` is what it printed."""

    def __init__(self, checkpoint, *words, port=0, token=None):
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **({"UNIAD_SERVE_TOKEN": token} if token else {})}
        self.process = subprocess.Popen(
            [UNIAD, "serve", f"ckpt_path={checkpoint}", f"port={port}", "device=cpu", *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment,
        )  # fmt: skip
        self.lines = []
        super().__init__(self._address(), token)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: answers(self.url))

    def _address(self):
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("serving "):
                return line.split(" at ")[1].split(";")[0].split(",")[0]
        raise AssertionError("".join(self.lines))

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line)

    def stop(self, number=signal.SIGTERM):
        """The exit status, once it has ended."""
        self.process.send_signal(number)
        status = self.process.wait(timeout=120)
        self._reader.join(timeout=10)
        return status

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(timeout=60)
        self.process.stdout.close()


def settings_for(checkpoint, *words):
    """Those of the command on any free port."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return settings_of(compose("serve", [f"ckpt_path={checkpoint}", "device=cpu", "port=0", *words]))


class InThread(Asking):
    """The same server in this process; takes the same words."""

    def __init__(self, checkpoint, *words):
        settings = settings_for(checkpoint, *words)
        self.server = uvicorn.Server(config_of(settings, create_app(settings, ServedModel.load(settings))))
        self.server.config.port = 0
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        wait_until(lambda: self.server.started)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}", settings.token)

    def end(self):
        self.server.should_exit = True
        self.thread.join()


def answers(url):
    """Whether a server does."""
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(reached, seconds=180):
    """Until `reached()` is true, or a failure."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "not reached in time"
        time.sleep(0.05)
