"""Bodies that are meant to harm are refused in time, and cost no other request anything."""

import base64
import gzip
import io
import socket
import tempfile
import threading
import time
from contextlib import suppress

import httpx
import numpy as np
import pytest
from PIL import Image

from support.pictures import damaged, header_only
from support.servers import InThread

PNG = {"Content-Type": "image/png"}
MULTI = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def strict(checkpoint):
    with InThread(checkpoint, "max_megabytes=1", "max_megapixels=1", "read_timeout=1.5", "queue=8") as server:
        yield server


def png_of(size):
    file = io.BytesIO()
    Image.fromarray(np.zeros(size, dtype=np.uint8)).save(file, format="PNG")
    return file.getvalue()


def parts(count, *, files=True):
    name = 'name="image"; filename="a.png"' if files else 'name="a"'
    return b"".join(b"--b\r\nContent-Disposition: form-data; %s\r\n\r\nx\r\n" % name.encode() for _ in range(count))


def chunks():
    for _ in range(64):
        yield b"\0" * 65536


HOSTILE = {
    "bomb": (422, PNG, lambda _: png_of((5000, 5000)), "megapixels"),
    "header of a bomb": (422, PNG, lambda folder: header_only(folder / "x.png", 60000, 60000).read_bytes(), "megapix"),
    "truncated": (422, PNG, lambda _: png_of((300, 300))[:-40], "cannot be decoded"),
    "text": (422, PNG, lambda _: b"hello", "not an image"),
    "empty": (422, PNG, lambda _: b"", "empty"),
    "another type": (415, {"Content-Type": "text/plain"}, lambda _: b"hello", "expected multipart/form-data"),
    "no type": (415, {}, lambda _: b"hello", "Content-Type: none"),
    "packed": (415, {**PNG, "Content-Encoding": "gzip"}, lambda _: gzip.compress(b"\0" * 10**6), "Content-Encoding"),
    "too long": (413, PNG, lambda _: b"\0" * 1_100_000, "more than 1 MB"),
    "too long, of unknown length": (413, PNG, lambda _: chunks(), "more than 1 MB"),
    "10,000 files": (400, MULTI, lambda _: parts(10_000), "Too many files"),
    "10,000 fields": (400, MULTI, lambda _: parts(10_000, files=False), "Too many fields"),
    "a field of 900 kB": (422, MULTI, lambda _: parts(1, files=False).replace(b"x", b"x" * 900_000) + b"--b--", "no"),
    "no form": (400, MULTI, lambda _: b"garbage", "Invalid multipart"),
    "no boundary": (400, {"Content-Type": "multipart/form-data"}, lambda _: parts(1), "oundary"),
    "no part": (422, MULTI, lambda _: b"--b--\r\n", "no image in the form"),
    "no JSON": (422, {"Content-Type": "application/json"}, lambda _: b"{", "JSON"),
    "deep JSON": (422, {"Content-Type": "application/json"}, lambda _: b'{"images":' + b"[" * 100_000, "JSON"),
    "other JSON": (422, {"Content-Type": "application/json"}, lambda _: b'{"images": [7]}', "images.0"),
    "no images": (422, {"Content-Type": "application/json"}, lambda _: b'{"images": []}', "images"),
    "not base64": (422, {"Content-Type": "application/json"}, lambda _: b'{"images": ["!!"]}', "images.0: not base64"),
    "many in JSON": (413, {"Content-Type": "application/json"}, lambda _: b'{"images": [%s""]}' % (b'"",' * 50), "51"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused_in_one_line(strict, pictures, tmp_path, caplog, name):
    status, headers, body, said = HOSTILE[name]
    answer = httpx.post(f"{strict.url}/predict", content=body(tmp_path), headers=headers, timeout=20)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert said in detail
    assert "\n" not in detail
    assert tempfile.gettempdir() not in detail
    assert not caplog.records  # a client must not fill the log
    assert strict.post(pictures[0]).status_code == 200


def test_damaged_files_never_make_the_server_fail(strict, pictures):
    for content in damaged(pictures[0].read_bytes(), 60):
        answer = strict.client.post("/predict", content=content, headers=PNG)
        assert answer.status_code in (200, 422), answer.text
    assert strict.metric("uniad_queue_images") == 0


def test_a_form_with_an_odd_name_is_answered_as_it_stands(strict, pictures):
    name = "a\u202eb<script>\u0007.png"
    answer = strict.client.post("/predict", files={"image": (name, b"no image")})
    assert answer.status_code == 422
    assert "\u202e" not in answer.json()["detail"]


def open_connection(server):
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)


def read_all(connection):
    read = b""
    with suppress(ConnectionResetError):  # what is sent to a closed connection resets it
        while chunk := connection.recv(65536):
            read += chunk
    return read


@pytest.mark.slow
def test_slow_senders_are_refused_and_hold_nobody_up(strict, pictures):
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 100000\r\n\r\n"
    slow = [open_connection(strict) for _ in range(40)]  # five times the queue
    for connection in slow:
        connection.sendall(head + b"\x89PNG")
    done = threading.Event()

    def drip():
        while not done.wait(0.2):
            for connection in slow:
                try:
                    connection.sendall(b"x")
                except OSError:  # refused by now
                    return

    dripping = threading.Thread(target=drip)
    dripping.start()
    for path in pictures[:5]:
        assert strict.post(path).status_code == 200  # meanwhile
    answers = [read_all(connection) for connection in slow]
    done.set()
    dripping.join()
    assert all(answer.startswith(b"HTTP/1.1 408 ") and b"read_timeout" in answer for answer in answers)
    assert strict.post(pictures[0]).status_code == 200


@pytest.mark.slow
def test_connections_without_a_request_are_closed(strict, pictures):
    silent, half = open_connection(strict), open_connection(strict)
    half.sendall(b"POST /predict HTTP/1.1\r\nHost: 127")
    assert read_all(silent) == b""  # ends, where uvicorn alone would wait for ever
    assert read_all(half) == b""
    assert strict.post(pictures[0]).status_code == 200


def test_a_client_that_leaves_costs_nothing(strict, pictures, caplog):
    content = pictures[0].read_bytes()
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
    for sent in (content[: len(content) // 2], content):
        connection = open_connection(strict)
        connection.sendall(head % len(content) + sent)
        connection.close()
    time.sleep(0.5)
    assert strict.post(pictures[0]).status_code == 200
    assert strict.metric("uniad_queue_images") == 0
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.slow
def test_bytes_that_wait_are_bounded(checkpoint, pictures):
    """Five bodies of nearly the largest size, where four may wait."""
    with InThread(checkpoint, "max_megabytes=0.2", "read_timeout=5") as server:
        head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 200000\r\n\r\n"
        holding = [open_connection(server) for _ in range(4)]
        for connection in holding:
            connection.sendall(head + b"\0" * 199_000)
        time.sleep(0.5)
        answer = server.client.post("/predict", content=b"\0" * 150_000, headers=PNG)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert all(read_all(connection).startswith(b"HTTP/1.1 408 ") for connection in holding)
        assert server.post(pictures[0]).status_code == 200


def test_base64_with_line_breaks_is_read(strict, pictures):
    text = base64.encodebytes(pictures[0].read_bytes()).decode()
    answer = strict.client.post("/predict", json={"images": [text]})
    assert answer.json()["images"][0]["score"] == pytest.approx(strict.predict(pictures[0])["score"], abs=1e-5)
