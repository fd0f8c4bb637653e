"""Images for a source to find, the names that it gives, and a folder that is watched beside what a test does."""

import os
import threading
import time

import numpy as np
from PIL import Image

from uniad_lightning.errors import InputError
from uniad_lightning.prediction.sources.opening import open_source


def save(path, value=7, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), value, dtype=np.uint8)).save(path)
    return path


def names(source):
    return [item.name for item in source.items if item is not None]


def old(path):
    os.utime(save(path), (1, 1))
    return path


class Watched:
    """A watched folder whose images are collected with the time at which each came, beside what a test does."""

    def __init__(self, folder, **settings):
        self.folder = folder
        self.came = []
        self.errors = []
        self.source = open_source(str(folder), watch=True, **{"stop_after_idle": 2.0, **settings})
        self.thread = threading.Thread(target=self._collect)

    def _collect(self):
        try:
            for item in self.source.items:
                if item is not None:
                    self.came.append((item.name, time.monotonic(), self._size(item)))
        except InputError as error:
            self.errors.append(str(error))

    def _size(self, item):
        try:
            return item.read().shape
        except InputError as error:
            return str(error)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join(40)
        assert not self.thread.is_alive()

    def wait_for(self, count):
        until = time.monotonic() + 20
        while len(self.came) < count and time.monotonic() < until:
            time.sleep(0.02)

    @property
    def names(self):
        return [name for name, _, _ in self.came]
