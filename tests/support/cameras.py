"""A camera of the network: a real server of MJPEG (multipart/x-mixed-replace) on a free port of this machine."""

import base64
import io
import time
from http.server import BaseHTTPRequestHandler

from PIL import Image

from support.local_server import LocalServer


def jpeg(colour=(90, 90, 90), size=(64, 48)):
    """One frame."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    owner: "Camera"

    def do_GET(self):
        camera = self.owner
        if camera.allowed and self.headers["Authorization"] != camera.allowed:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
            return
        camera.connections += 1
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        sent = 0
        try:
            while camera.alive and (camera.frames is None or sent < camera.frames):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(camera.frame)}\r\n\r\n"
                self.wfile.write(head.encode() + camera.frame + b"\r\n")
                sent += 1
                camera.sent += 1
                time.sleep(camera.pause)
        except OSError:  # whoever asked has gone
            pass

    def log_message(self, *_):
        pass


class Camera(LocalServer):
    """Sends frame after frame, `pause` seconds apart, to whoever asks; `frames` of them to each, None for no end.

    With `user` and `password` nobody else gets any. `closes` ends port and connections, as a power cut does; `opens`
    takes the same port again.
    """

    handler, page = _Handler, "stream"

    def __init__(self, *, pause=0.02, frames=None, frame=None, user=None, password=None):
        self.pause, self.frames = pause, frames
        self.frame = frame or jpeg()
        self.allowed = user and "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self.sent = self.connections = 0
        super().__init__()
        self.opens()

    def opens(self):
        self.alive = True
        super().opens()

    def closes(self):
        self.alive = False  # or whoever looks on would get frames
        super().closes()
