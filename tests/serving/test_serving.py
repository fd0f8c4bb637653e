"""What the server answers: the numbers of `uniad predict`, pictures, metrics, schemas; and who may ask."""

import base64
import io
import json
import socket
import threading

import httpx
import numpy as np
import pytest
from PIL import Image

from support.servers import InThread, Server, wait_until
from uniad_lightning import Detector
from uniad_lightning.drift.monitor import Monitor
from uniad_lightning.serving import serve
from uniad_lightning.serving.metrics import Metrics

SAME = ("decision", "category", "familiar")


def rows_of(uniad, checkpoint, pictures, folder):
    listed = folder / "list.txt"
    listed.write_text("\n".join(map(str, pictures)))
    status, _, err = uniad("predict", f"ckpt_path={checkpoint}", f"input={listed}", f"output_dir={folder}/out")
    assert status in (0, 1), err
    return [json.loads(line) for line in (folder / "out/predictions.jsonl").read_text().splitlines()]


def check_alike(results, rows):
    assert len(results) == len(rows)
    for result, row in zip(results, rows, strict=True):
        assert abs(result["score"] - row["score"]) <= 1e-5
        assert abs(result["normalised_score"] - row["normalised_score"]) <= 1e-5
        assert [result[name] for name in SAME] == [row[name] for name in SAME]
        assert [region["box"] for region in result["regions"]] == [region["box"] for region in row["regions"]]


def test_every_way_of_sending_has_the_numbers_of_uniad_predict(server, checkpoint, pictures, uniad, tmp_path):
    rows = rows_of(uniad, checkpoint, pictures, tmp_path)
    form = [("image", (path.name, path.read_bytes(), "image/png")) for path in pictures]
    in_form = server.client.post("/predict", files=form).json()
    texts = [base64.b64encode(path.read_bytes()).decode() for path in pictures]
    in_json = server.client.post("/predict", json={"images": texts}).json()
    check_alike(in_form["images"], rows)
    check_alike(in_json["images"], rows)
    check_alike([server.predict(path) for path in pictures], rows)
    assert [result["name"] for result in in_form["images"]] == [path.name for path in pictures]
    assert in_form["model"].startswith("last.ckpt:")
    assert in_form["milliseconds"] > 0
    assert {result["decision"] for result in in_form["images"]} <= {"good", "defective", "unknown"}


@pytest.mark.slow
def test_an_exported_file_is_served(checkpoint, pictures, uniad, tmp_path):
    exported = tmp_path / "small.onnx"
    status, _, err = uniad("export", f"ckpt_path={checkpoint}", f"output={exported}", f"output_dir={tmp_path}/report")
    assert status == 0, err
    rows = rows_of(uniad, exported, pictures, tmp_path)
    with Server(exported) as server:
        check_alike([server.predict(path) for path in pictures], rows)
        assert server.stop() == 0


def test_pictures_on_request(server, checkpoint, pictures):
    inspection = Detector.load(checkpoint, device="cpu").predict(pictures[0])
    plain = server.predict(pictures[0])
    assert "map" not in plain
    assert "overlay" not in plain
    result = server.predict(pictures[0], params={"map": "true", "overlay": "true"})
    sent = result["map"]
    grey = np.asarray(Image.open(io.BytesIO(base64.b64decode(sent["png"])))).astype(np.float64)
    heat = sent["low"] + grey / 65535 * (sent["high"] - sent["low"])
    assert heat.shape == inspection.anomaly_map.shape
    np.testing.assert_allclose(heat, inspection.anomaly_map, atol=(sent["high"] - sent["low"]) / 65535 + 1e-5)
    overlay = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["overlay"]))))
    np.testing.assert_array_equal(overlay, np.asarray(inspection.overlay()))


def test_a_category_that_is_given_decides(server, checkpoint, pictures):
    boundary = Detector.load(checkpoint, device="cpu").calibration.categories["cable"]
    result = server.predict(pictures[0], params={"category": "cable"})
    assert result["category"] == "cable"
    assert abs(result["normalised_score"] - boundary.normalised(result["score"])) < 1e-6
    refused = server.post(pictures[0], params={"category": "cabel"})
    assert refused.status_code == 422
    assert "Did you mean 'cable'?" in refused.json()["detail"]


def resolved(node, whole):
    return whole["components"]["schemas"][node["$ref"].split("/")[-1]] if "$ref" in node else node


def test_openapi_describes_what_is_answered(server, pictures):
    whole = server.client.get("/openapi.json").json()
    predict = whole["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {
        "multipart/form-data", "application/json", "image/*", "application/octet-stream"
    }  # fmt: skip
    assert {"401", "408", "413", "415", "422", "503"} <= set(predict["responses"])
    answer = resolved(predict["responses"]["200"]["content"]["application/json"]["schema"], whole)
    result = resolved(answer["properties"]["images"]["items"], whole)
    sent = server.post(pictures[0], params={"map": "true", "overlay": "true"}).json()
    assert set(sent) == set(answer["properties"])
    assert set(sent["images"][0]) == set(result["properties"])
    problem = resolved(predict["responses"]["422"]["content"]["application/json"]["schema"], whole)
    assert set(server.post(pictures[0], params={"map": "maybe"}).json()) == set(problem["properties"])
    assert whole["components"]["securitySchemes"]


def test_a_window_that_can_never_show_drift_is_said_for_every_checkpoint(checkpoint, capfd):
    calibration = Detector.load(checkpoint, device="cpu").calibration
    known = {name: own._replace(images=30) for name, own in calibration.baselines.items()}
    monitors = [Monitor(calibration._replace(baselines=known), window=images, defects=0.1) for images in (10, 200)]
    said = "warning: drift_window=10 can never show drift with as few good images as the calibration had of bottle (30)"
    Metrics(monitors[0])
    assert said in capfd.readouterr().err
    metrics = Metrics(monitors[1])
    assert capfd.readouterr().err == ""
    metrics.start_again(monitors[0])
    assert said in capfd.readouterr().err


def test_metrics_count_decisions_by_product_and_tell_the_drift(checkpoint, pictures):
    edges = Detector.load(checkpoint, device="cpu").calibration
    with InThread(checkpoint) as server:
        assert server.client.get("/readyz").json()["calibrated"] is True
        results = [server.predict(path) for path in pictures]
        counts = {(result["decision"], result["category"]) for result in results}
        for decision, product in counts:
            expected = sum((result["decision"], result["category"]) == (decision, product) for result in results)
            name = f'uniad_images_total{{decision="{decision}",product="{product}"}}'
            assert server.metric(name) == expected
        for product in {result["category"] for result in results}:
            edge = edges.deciding(product)
            known = edges.baselines[product]
            middle = np.median([result["score"] for result in results if result["category"] == product])
            drift = (middle - known.median) / edge.spread
            assert server.metric(f'uniad_score_drift{{product="{product}"}}') == pytest.approx(drift, abs=1e-4)
        assert server.metric('uniad_requests_total{status="200"}') == len(pictures)
        assert server.metric("uniad_request_seconds_count") == len(pictures)
        assert server.metric("uniad_queue_images") == 0
        assert server.metric("uniad_queue_limit") == 64


def together(server, pictures, count):
    """The answers to `count` requests that are sent at the same time."""
    answers = [None] * count
    gate = threading.Barrier(count)

    def ask(place):
        gate.wait()
        answers[place] = server.post(pictures[place % len(pictures)])

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("most", [8, 1])
def test_images_of_several_requests_are_one_batch(checkpoint, pictures, most):
    with InThread(checkpoint, f"max_batch={most}", "max_wait_ms=500") as server:
        alone = {path: server.predict(path)["score"] for path in pictures}
        before = server.metric("uniad_batch_images_count")
        answers = together(server, pictures, 8)
        for place, answer in enumerate(answers):
            path = pictures[place % len(pictures)]
            assert answer.json()["images"][0]["score"] == pytest.approx(alone[path], abs=1e-5)
        batches = server.metric("uniad_batch_images_count") - before
        assert batches == 8 if most == 1 else batches < 8


def test_more_than_the_queue_is_told_when_to_try_again(checkpoint, pictures):
    with InThread(checkpoint, "queue=2", "max_batch=2", "max_wait_ms=200") as server:
        answers = together(server, pictures, 16)
        refused = [answer for answer in answers if answer.status_code == 503]
        assert refused
        assert all(answer.headers["Retry-After"] == "1" and "queue=2" in answer.json()["detail"] for answer in refused)
        served = [answer for answer in answers if answer.status_code == 200]
        assert len(served) + len(refused) == 16
        assert len(served) >= 2
        wait_until(lambda: server.post(pictures[0]).status_code == 200)  # the places are free again
        files = [("image", path.read_bytes()) for path in pictures[:3]]
        assert server.client.post("/predict", files=files).status_code in (400, 413)


def test_a_token_is_asked_for(checkpoint, pictures):
    with InThread(checkpoint, "token=s3cret") as server:
        for given in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic s3cret"}):
            for method, path in (("POST", "/predict"), ("GET", "/metrics")):
                answer = httpx.request(method, f"{server.url}{path}", headers=given, timeout=60)
                assert answer.status_code == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        for path in ("/", "/healthz", "/readyz", "/openapi.json"):
            assert httpx.get(f"{server.url}{path}", timeout=60).status_code == 200
        mine = {"Authorization": "Bearer s3cret", "Content-Type": "image/png"}
        image = pictures[0].read_bytes()
        assert httpx.post(f"{server.url}/predict", content=image, headers=mine, timeout=60).status_code == 200


def test_without_a_token_only_names_of_this_machine_lead_here(server):
    assert server.client.get("/healthz", headers={"Host": "factory.example"}).status_code == 400
    assert server.client.get("/healthz", headers={"Host": "localhost"}).status_code == 200


def test_a_busy_port_is_one_line(uniad, checkpoint):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, err = uniad("serve", f"ckpt_path={checkpoint}", f"port={port}")
    assert status == 2
    assert err.splitlines() == [err.rstrip("\n")]
    assert f"port={port}: cannot listen there (Address already in use); end the other program" in err


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_another_machine_is_one_line(uniad, checkpoint, host):
    status, _, err = uniad("serve", f"ckpt_path={checkpoint}", f"host={host}", "token=s3cret")
    assert status == 2
    assert err.splitlines() == [err.rstrip("\n")]
    assert f"host={host} port=8000: cannot listen there" in err
    assert "give an address of this machine" in err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("host=0.0.0.0", "host=0.0.0.0: other machines could reach it, and there is no token"),
        ("host='::'", "host=::: other machines"),
        ("port=70000", "port=70000: expected 0 (any free one) to 65535"),
        ("max_batch=0", "max_batch=0: expected a whole number from 1"),
        ("queue=2.5", "queue=2.5: expected a whole number from 1"),
        ("max_wait_ms=-1", "max_wait_ms=-1: expected a number from 0"),
        ("read_timeout=0", "read_timeout=0: expected a number above 0"),
        ("max_megabytes=lots", "max_megabytes=lots: expected a number"),
        ("reload_every=0", "reload_every=0: expected seconds, or null"),
        ("token='a b'", "token: holds blanks"),
        ("token=1e5", "token: is read as a number"),
        ("device=gpu", "device=gpu"),
        ("precision=int8", "precision=int8: expected fp32"),
        ("ckpt_path=nowhere.ckpt", "nowhere.ckpt"),
        ("host=no.such.host.invalid token=x", "host=no.such.host.invalid"),
    ],
)
def test_a_mistake_is_one_line(uniad, checkpoint, monkeypatch, word, said):
    monkeypatch.delenv("UNIAD_SERVE_TOKEN", raising=False)
    status, _, err = uniad("serve", f"ckpt_path={checkpoint}", "port=0", *word.split(" ", 0 if "'" in word else -1))
    assert status == 2
    assert len(err.splitlines()) == 1
    assert said in err


def test_a_missing_package_names_the_extra(uniad, checkpoint, monkeypatch):
    monkeypatch.setitem(serve._NEEDED, "no_such_module", "fastapi")
    status, _, err = uniad("serve", f"ckpt_path={checkpoint}")
    assert status == 2
    assert err == "uniad serve: fastapi not installed; pip install 'uniad-lightning[serve]'\n"
