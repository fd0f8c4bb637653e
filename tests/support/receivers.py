"""A receiver of webhooks: a real server on a free port of this machine that keeps what it is sent."""

import json
import threading
from http.server import BaseHTTPRequestHandler

from support.local_server import LocalServer


class _Handler(BaseHTTPRequestHandler):
    owner: "Receiver"

    def do_POST(self):
        receiver = self.owner
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with receiver.lock:
            status = receiver.answers.pop(0) if receiver.answers else 204
            receiver.requests.append((dict(self.headers), body))
            if status < 300:
                receiver.taken.append(body)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Receiver(LocalServer):
    """Answers each POST with the next of `answers`, then with 204; `taken` are the bodies that it said 2xx to.

    Closed at first where not `up`; `opens` and `closes` take and leave its port.
    """

    handler, page = _Handler, "rows"

    def __init__(self, *, answers=(), up=True, tls=None):
        self.answers = list(answers)
        self.requests, self.taken = [], []
        self.lock = threading.Lock()
        super().__init__(tls)
        self.opens()
        if not up:
            self.closes()

    @property
    def ids(self):
        return [body["id"] for body in self.taken]
