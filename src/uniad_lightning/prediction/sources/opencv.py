"""OpenCV for videos, cameras and streams, without messages of its own."""

import os
from typing import Any


def opencv() -> Any:
    """The module `cv2`, which takes long to import; what fails is reported by our own lines.

    FFmpeg's messages would show the password of a stream. Its level is read once in a process, when it is first used.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    if hasattr(cv2.utils, "logging"):
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    else:  # OpenCV 4
        cv2.setLogLevel(0)  # type: ignore[attr-defined]
    return cv2
