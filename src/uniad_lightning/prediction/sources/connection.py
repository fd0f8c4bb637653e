"""One connection to a camera or a stream, by OpenCV."""

import socket
from glob import glob
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.prediction.sources.address import PORTS, Address
from uniad_lightning.prediction.sources.opencv import opencv

_OPEN, _SILENT = 10_000, 30_000  # milliseconds until a stream has begun, and until a silent one is taken as lost
_ASK = 3.0  # seconds


class Connection:
    """A camera or a stream that gives frames. Raises InputError where it cannot be opened."""

    def __init__(self, address: Address):
        cv2 = self._cv2 = opencv()
        if isinstance(address.opened, int):
            self._capture: Any = cv2.VideoCapture(address.opened)
        else:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _OPEN, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _SILENT]
            self._capture = cv2.VideoCapture(address.opened, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            raise InputError(f"input={address.shown}: {_reason(address)}")

    def skip(self) -> bool:
        """Wait for the next frame; False when there is none any more."""
        return bool(self._capture.grab())

    def frame(self) -> np.ndarray | None:
        """The frame that `skip` has waited for, (H, W, 3) uint8 RGB; None where it cannot be decoded."""
        decoded, frame = self._capture.retrieve()
        return np.asarray(self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)) if decoded else None

    def close(self) -> None:
        """Release the camera, or close the connection."""
        self._capture.release()


def _reason(address: Address) -> str:
    """Why nothing could be opened, and the remedy."""
    if isinstance(address.opened, int):
        found = ", ".join(f"camera:{path.removeprefix('/dev/video')}" for path in sorted(glob("/dev/video*")))
        return f"no such camera, or another program uses it; found: {found or 'none'}; connect it, or name another"
    try:
        parts = urlsplit(address.opened)
        port = parts.port or PORTS.get(parts.scheme, 0)
        if port and parts.hostname:
            socket.create_connection((parts.hostname, port), timeout=_ASK).close()
    except ValueError:
        return "is no valid address; in user, password and path / : @ [ ] are written %2F %3A %40 %5B %5D"
    except OSError as error:
        return f"cannot be reached ({error.strerror or one_line(error)}); check the address, and that the camera is on"
    return "is reached, but gives no video; check its path, user and password, and that a player such as VLC plays it"
