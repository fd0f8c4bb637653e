"""Clients of `uniad serve`: patient ones whose answers are checked, and those that refuse, stall, hang up or harm."""

import base64
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from io import BytesIO

import httpx
from long_runs.journal import Picture, alike, broken_of
from PIL import Image

TRIES = 200  # of a request that gets 503
IDLE = 10  # seconds after which the server closes a connection on which nothing comes
# How often each comes, out of the sum.
KINDS = {
    "one": 30, "form": 20, "in_json": 8, "with_pictures": 6, "slowly": 6, "refused": 15, "other_pages": 4,
    "half_sent": 4, "unread": 4, "stalled": 2, "no_http": 3, "too_long": 2, "silent": 1,
}  # fmt: skip
TYPES = {".png": "image/png", ".bmp": "image/bmp", ".jpg": "image/jpeg", ".tif": "image/tiff"}
JSON = {"Content-Type": "application/json"}


class Clients:
    """What clients of the server at `address` ask, and what was wrong with the answers; safe in several threads.

    `statuses` counts answers of `/predict`, `images` those in them, `unread` the requests whose answer nobody took.
    """

    def __init__(self, address: str, pictures: list[Picture], seed: int):
        self.address, self.pictures, self.seed = address, pictures, seed
        host, port = address.removeprefix("http://").split(":")
        self._place = (host, int(port))
        self._client = httpx.Client(base_url=address, timeout=60, limits=httpx.Limits(max_connections=20))
        self._lock = threading.Lock()
        self.kinds: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.images = self.unread = 0
        self.faults: list[str] = []
        self._bomb = _bomb()

    def ask(self, number: int) -> None:
        """The request of this number: the same for every run of the seed."""
        own = random.Random(f"{self.seed} {number}")
        (kind,) = own.choices([*KINDS], [*KINDS.values()])
        try:
            getattr(self, f"_{kind}")(own)
        except (httpx.HTTPError, OSError) as error:
            self._fault(f"request {number}, {kind}: {type(error).__name__}: {error}")
        with self._lock:
            self.kinds[kind] += 1

    def _fault(self, text: str) -> None:
        with self._lock:
            self.faults.append(text)

    def _count(self, status: int) -> None:
        with self._lock:
            self.statuses[status] += 1

    def _post(self, own: random.Random, request: Callable[[], dict[str, object]]) -> httpx.Response:
        """Ask until it is not 503."""
        for _ in range(TRIES):
            answer = self._client.post("/predict", **request())  # type: ignore[arg-type]
            self._count(answer.status_code)
            if answer.status_code != 503:
                break
            if "Retry-After" not in answer.headers:
                self._fault("503 without Retry-After")
            time.sleep(own.uniform(0.2, 1))
        return answer

    def _check(self, answer: httpx.Response, names: list[str], pictures: list[Picture]) -> None:
        """Each image is answered once, in its place, by the result of its content."""
        if answer.status_code != 200:
            return self._fault(f"status {answer.status_code} for {', '.join(names)}: {answer.text[:200]}")
        found = answer.json()["images"]
        with self._lock:
            self.images += len(found)
        if [image["name"] for image in found] != names:
            return self._fault(f"sent {names}, answered {[image['name'] for image in found]}")
        for image, picture in zip(found, pictures, strict=True):
            if not alike(image["score"], picture.score):
                self._fault(f"{image['name']}: score {image['score']}, expected {picture.score}")
        return None

    def _one(self, own: random.Random) -> None:
        picture = own.choice(self.pictures)
        headers = {"Content-Type": TYPES[picture.suffix]}
        answer = self._post(own, lambda: {"content": picture.content, "headers": headers})
        self._check(answer, ["image"], [picture])

    def _form(self, own: random.Random) -> None:
        pictures = own.choices(self.pictures, k=own.randint(1, 8))
        names = [f"{own.randrange(10**9)}{picture.suffix}" for picture in pictures]
        files = [("image", (name, picture.content)) for name, picture in zip(names, pictures, strict=True)]
        self._check(self._post(own, lambda: {"files": files}), names, pictures)

    def _in_json(self, own: random.Random) -> None:
        pictures = own.choices(self.pictures, k=own.randint(1, 4))
        body = {"images": [base64.b64encode(picture.content).decode() for picture in pictures]}
        answer = self._post(own, lambda: {"json": body})
        self._check(answer, [f"image {place}" for place in range(1, len(pictures) + 1)], pictures)

    def _with_pictures(self, own: random.Random) -> None:
        picture = own.choice(self.pictures)
        wanted = {"map": "true", "overlay": "true"}
        answer = self._post(own, lambda: {"files": {"image": ("a", picture.content)}, "params": wanted})
        self._check(answer, ["a"], [picture])
        if answer.status_code == 200 and not {"map", "overlay"} <= answer.json()["images"][0].keys():
            self._fault("an answer without its map or overlay")

    def _slowly(self, own: random.Random) -> None:
        picture = own.choice(self.pictures)
        pauses = [own.uniform(0.05, 0.5) for _ in range(4)]
        headers = {"Content-Type": TYPES[picture.suffix]}
        answer = self._post(own, lambda: {"content": _pieces(picture.content, pauses), "headers": headers})
        self._check(answer, ["image"], [picture])

    def _refused(self, own: random.Random) -> None:
        picture = own.choice(self.pictures)
        png = {"Content-Type": "image/png"}
        status, request = own.choice([
            *((422, {"content": broken.content, "headers": png}) for broken in broken_of(picture)),
            (422, {"content": self._bomb, "headers": png}),
            (422, {"content": picture.content, "headers": png, "params": {"category": "nobody"}}),
            (422, {"content": b'{"images": [7]}', "headers": JSON}),
            (422, {"content": b'{"images":' + b"[" * 10_000, "headers": JSON}),
            (415, {"content": picture.content, "headers": {"Content-Type": "text/plain"}}),
            (413, {"json": {"images": [""] * 17}}),
        ])  # fmt: skip
        answer = self._post(own, lambda: request)
        if answer.status_code != status:
            self._fault(f"status {answer.status_code}, expected {status}: {answer.text[:200]}")

    def _other_pages(self, own: random.Random) -> None:
        status, page = own.choice([(200, "/"), (200, "/healthz"), (200, "/metrics"), (404, "/nothing")])
        if self._client.get(page).status_code != status:
            self._fault(f"{page}: not status {status}")

    def _half_sent(self, own: random.Random) -> None:
        content = own.choice(self.pictures).content
        with socket.create_connection(self._place, timeout=60) as connection:
            connection.sendall(_head(len(content)) + content[: len(content) // 2])
            time.sleep(own.uniform(0, 0.5))

    def _unread(self, own: random.Random) -> None:
        content = own.choice(self.pictures).content
        with socket.create_connection(self._place, timeout=60) as connection:
            connection.sendall(_head(len(content)) + content)
            time.sleep(own.choice([0, 0, 0.05]))
        with self._lock:
            self.unread += 1

    def _stalled(self, own: random.Random) -> None:
        self._raw(_head(100_000) + b"\x89PNG", b"HTTP/1.1 408", 408)

    def _too_long(self, own: random.Random) -> None:
        self._raw(_head(10**9), b"HTTP/1.1 413", 413)

    def _no_http(self, own: random.Random) -> None:
        self._raw(
            own.choice([b"\x16\x03\x01nonsense\r\n\r\n", b"GET\r\n\r\n", b"A" * 5000 + b"\r\n\r\n"]), b"HTTP/1.1 400"
        )

    def _silent(self, own: random.Random) -> None:
        began = time.monotonic()
        self._raw(b"", b"")
        if time.monotonic() - began > IDLE + 20:
            self._fault("a silent connection was kept")

    def _raw(self, sent: bytes, answered: bytes, status: int | None = None) -> None:
        """Send bytes, and compare the beginning of all that comes until the server closes."""
        found = b""
        with socket.create_connection(self._place, timeout=60) as connection:
            connection.sendall(sent)
            while part := connection.recv(65536):
                found += part
        if not found.startswith(answered) or bool(found) != bool(answered):
            self._fault(f"sent {sent[:40]!r}, answered {found[:40]!r}, expected {answered!r}")
        elif status is not None:
            self._count(status)

    def metrics(self) -> dict[str, float]:
        """What `/metrics` says."""
        lines = self._client.get("/metrics").text.splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    def differences(self) -> list[str]:
        """A line for each count of the server that the clients do not share."""
        found, faults = self.metrics(), []
        counted = {f'uniad_requests_total{{status="{status}"}}': n for status, n in self.statuses.items()}
        sums = {**counted, "uniad_images_total": self.images}
        found["uniad_images_total"] = sum(v for name, v in found.items() if name.startswith("uniad_images_total{"))
        for name, own in sums.items():
            if not own <= found.get(name, 0) <= own + self.unread:
                faults.append(f"{name}: {found.get(name, 0):.0f}, expected {own} to {own + self.unread}")
        if found["uniad_queue_images"]:
            faults.append(f"uniad_queue_images: {found['uniad_queue_images']:.0f} at the end, expected 0")
        return faults

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _head(length: int) -> bytes:
    lines = ("POST /predict HTTP/1.1", "Host: 127.0.0.1", "Content-Type: image/png", f"Content-Length: {length}")
    return "\r\n".join((*lines, "", "")).encode()


def _pieces(content: bytes, pauses: list[float]) -> Iterator[bytes]:
    size = len(content) // len(pauses) + 1
    for place, pause in enumerate(pauses):
        yield content[place * size : (place + 1) * size]
        time.sleep(pause)


def _bomb() -> bytes:
    """A small PNG file of more pixels than are allowed."""
    file = BytesIO()
    Image.new("1", (11_000, 11_000)).save(file, format="PNG")
    return file.getvalue()
