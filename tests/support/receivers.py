"""A receiver of webhooks: a real server on a free port of this machine that keeps what it is sent."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Answers each POST with the next of `answers`, then with 204; `taken` are the bodies that it said 2xx to.

    Closed at first where not `up`; `opens` and `closes` take and leave its port.
    """

    def __init__(self, *, answers=(), up=True):
        self.answers = list(answers)
        self.requests, self.taken = [], []
        self.lock = threading.Lock()
        self.server, self.port = None, 0
        self.opens()
        if not up:
            self.closes()

    def opens(self):
        kind = type("Handler", (_Handler,), {"receiver": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), kind)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def closes(self):
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/rows"

    @property
    def ids(self):
        return [body["id"] for body in self.taken]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closes()


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver

    def do_POST(self):
        receiver = self.receiver
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
