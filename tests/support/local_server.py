"""A real HTTP server on a free port of this machine, whose port can be left and taken again."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LocalServer:
    """Serves with `handler`, a class of requests that finds this object as its `owner`, until `closes`.

    With `tls`, the SSLContext of a server, over HTTPS.
    """

    handler: type[BaseHTTPRequestHandler]
    page: str  # of its address

    def __init__(self, tls=None):
        self.server, self.port, self.tls = None, 0, tls

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/{self.page}"

    def opens(self):
        kind = type("Handler", (self.handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", self.port), kind)
        self.server.daemon_threads = True
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def closes(self):
        if self.server is not None:
            self.server.shutdown()
            self.thread.join()
            self.server.server_close()
            self.server = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closes()
