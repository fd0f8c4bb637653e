"""The life of the process: a stop that loses nothing, a new checkpoint, kills, several workers."""

import gc
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress
from types import SimpleNamespace

import httpx
import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from support.children import begin, status_of
from support.servers import InThread, Server, settings_for, wait_until
from uniad_lightning import Detector
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.serving import server as serving_process
from uniad_lightning.training.checkpoint import load_checkpoint, update_checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_all_that_was_accepted(checkpoint, tmp_path, number):
    large = tmp_path / "large.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 99, (900, 900, 3), dtype=np.uint8)).save(large)
    answers = []
    with Server(checkpoint, "max_batch=13", "max_wait_ms=10000") as server:  # they stay in the queue
        ask = lambda: answers.append(server.post(large, params={"overlay": "true"}))  # noqa: E731
        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.metric("uniad_queue_images") == 12)
        status = server.stop(number)
        for thread in threads:
            thread.join()
        assert status == 0
        assert server.lines[-1] == "stopped\n"
        with pytest.raises(httpx.TransportError):
            server.client.get("/healthz")
    assert [answer.status_code for answer in answers] == [200] * 12


def serve_and_end(checkpoint, workers):
    """The signal comes as soon as the server has said that it ends by one."""
    signal.alarm(120)

    def say(line, **more):
        print(line, flush=True)
        if line.startswith("serving "):
            signal.raise_signal(signal.SIGTERM)

    serving_process.print_stdout = say
    serving_process.run(settings_for(checkpoint, f"workers={workers}"))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_at_the_very_start_is_not_lost(checkpoint, workers):
    assert status_of(begin(serve_and_end, checkpoint, workers)) == 0


def shifted(path):
    """Gives the checkpoint other boundaries, and so another digest."""
    calibration = Calibration.from_plain(load_checkpoint(str(path))["calibration"])
    overall = calibration.overall._replace(score=2 * calibration.overall.score)
    categories = {name: edge._replace(score=2 * edge.score) for name, edge in calibration.categories.items()}
    update_checkpoint(str(path), calibration=calibration._replace(overall=overall, categories=categories).plain())


@pytest.mark.slow
def test_a_new_checkpoint_drops_no_request(own_checkpoint, pictures):
    before = Detector.load(own_checkpoint, device="cpu").predict(pictures[0]).normalised
    seen, done = [], threading.Event()
    with Server(own_checkpoint, "reload_every=0.2") as server:

        def ask():
            own = []
            seen.append(own)
            while not done.is_set():
                answer = server.post(pictures[0])
                own.append((answer.status_code, answer.json()["model"], answer.json()["images"][0]["normalised_score"]))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(len(own) > 5 for own in seen))
        shifted(own_checkpoint)
        after = Detector.load(own_checkpoint, device="cpu").predict(pictures[0]).normalised
        wait_until(lambda: server.metric('uniad_reloads_total{outcome="done"}') == 1)
        whole = own_checkpoint.read_bytes()
        own_checkpoint.write_bytes(whole[:5000])
        wait_until(lambda: server.metric('uniad_reloads_total{outcome="failed"}') == 1)
        counts = [len(own) for own in seen]
        wait_until(lambda: all(len(own) > count + 5 for own, count in zip(seen, counts, strict=True)))
        own_checkpoint.write_bytes(whole)
        wait_until(lambda: server.metric('uniad_reloads_total{outcome="done"}') == 2)
        done.set()
        for thread in threads:
            thread.join()
        assert server.stop() == 0
        assert sum("stays in use" in line for line in server.lines) >= 1
    assert abs(after - before) > 1e-3
    for own in seen:
        assert {status for status, _, _ in own} == {200}
        models = list(dict.fromkeys(model for _, model, _ in own))
        assert len(models) == 2  # the old one, then the new one
        expected = dict(zip(models, (before, after), strict=True))
        assert all(abs(score - expected[model]) < 1e-5 for _, model, score in own)


def modules():
    return weakref.WeakSet(one for one in gc.get_objects() if isinstance(one, torch.nn.Module))


@pytest.mark.slow
def test_a_replaced_model_leaves_the_memory(own_checkpoint, pictures):
    """Not by the collector's own choice, which may be for a hundred models later."""
    gc.collect()
    others = modules()
    with InThread(own_checkpoint, "reload_every=0.3") as server:
        server.post(pictures[0])
        first = modules() - others
        assert len(first) > 10
        gc.disable()
        try:
            shutil.copyfile(own_checkpoint, own_checkpoint.with_suffix(".new"))
            own_checkpoint.with_suffix(".new").rename(own_checkpoint)
            wait_until(lambda: server.metric('uniad_reloads_total{outcome="done"}') == 1)
            wait_until(lambda: not len(first), seconds=20)
        finally:
            gc.enable()


@pytest.mark.slow
def test_killed_and_started_again_at_the_same_port(checkpoint, pictures):
    with Server(checkpoint) as first:
        port = first.url.rsplit(":", 1)[1]
        score = first.predict(pictures[0])["score"]
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    with Server(checkpoint, port=port) as second:
        assert second.predict(pictures[0])["score"] == pytest.approx(score, abs=1e-5)


PARENT = """
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from uniad_lightning.serving.workers import stop_with_parent

if __name__ == "__main__":
    other = ProcessPoolExecutor(1, get_context("spawn"))
    other.submit(stop_with_parent).result()
    print(*other._processes, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_the_process_of_the_first_load_ends_with_its_parent(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(serving_process, "stop_with_parent", lambda: asked.append("stop"))
    monkeypatch.setattr(serving_process.ServedModel, "load", lambda _: SimpleNamespace(name=asked.copy()))
    assert serving_process._try_to_load(None) == ["stop"]  # before it loads
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True) as parent:
        loader = psutil.Process(int(parent.stdout.readline()))
        parent.terminate()
    gone, _ = psutil.wait_procs([loader], timeout=20)
    assert gone


def workers_of(server):
    children = psutil.Process(server.process.pid).children()
    found = []
    for child in children:
        with suppress(psutil.NoSuchProcess):  # ended since, or a zombie
            if any("spawn_main" in word for word in child.cmdline()):
                found.append(child)
    return found


@pytest.mark.slow
def test_several_workers_share_the_port_and_the_counts(checkpoint, pictures):
    with Server(checkpoint, "workers=2", token="s3cret") as server:
        wait_until(lambda: server.metric("uniad_queue_limit") == 2 * 64)
        for place in range(20):  # each on its own connection, so that both get some
            with httpx.Client(base_url=server.url, headers=server.client.headers, timeout=60) as client:
                files = {"image": pictures[place % len(pictures)].read_bytes()}
                assert client.post("/predict", files=files).status_code == 200
        assert server.metric('uniad_requests_total{status="200"}') == 20
        killed = workers_of(server)[0]
        killed.kill()
        wait_until(lambda: killed.pid not in {child.pid for child in workers_of(server)})
        server.client.close()
        server.client = httpx.Client(base_url=server.url, headers=server.client.headers, timeout=60)
        assert server.post(pictures[0]).status_code == 200  # by the other one
        wait_until(lambda: server.metric("uniad_queue_limit") == 2 * 64)
        assert server.metric('uniad_requests_total{status="200"}') == 21  # those of the killed one count
        assert not any("s3cret" in word for child in workers_of(server) for word in child.cmdline())
        left = workers_of(server)
        assert server.stop() == 0
        assert not any(child.is_running() for child in left)


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(checkpoint, pictures):
    with Server(checkpoint, "workers=2") as server:
        port = server.url.rsplit(":", 1)[1]
        wait_until(lambda: server.metric("uniad_queue_limit") == 2 * 64)
        left = workers_of(server)
        server.stop(signal.SIGKILL)
        psutil.wait_procs(left, timeout=30)
        assert not any(child.is_running() for child in left)
    with Server(checkpoint, port=port) as second:
        assert second.post(pictures[0]).status_code == 200


@pytest.mark.slow
def test_ten_thousand_requests_leave_memory_as_it_was(checkpoint, pictures):
    contents = [path.read_bytes() for path in pictures]
    with Server(checkpoint) as server:
        process = psutil.Process(server.process.pid)
        statuses = []

        def ask(count):
            headers = {**server.client.headers, "Content-Type": "image/png"}
            with httpx.Client(base_url=server.url, timeout=60, headers=headers) as client:
                for place in range(count):
                    statuses.append(client.post("/predict", content=contents[place % len(contents)]).status_code)

        def all_of(requests):
            threads = [threading.Thread(target=ask, args=(requests // 8,)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return process.memory_info().rss / 1e6

        began = time.monotonic()
        sizes = [all_of(2000) for _ in range(5)]
        print(f"memory after each 2000 requests: {[round(size) for size in sizes]} MB, "
              f"{10_000 / (time.monotonic() - began):.0f} requests a second")  # fmt: skip
        assert statuses == [200] * 10_000
        assert sizes[-1] - sizes[0] < 15  # MB; a kept image of 80 x 72 would make 130 in 8000 requests
        assert process.num_fds() < 60
