"""A warning of what may be true of a million images: said once, with the first image that it is true of."""

import mmap
import multiprocessing
import sys

from tqdm import tqdm

from uniad_lightning.errors import complain


class Once:
    """One warning, given by the first that has cause to, be it this process or one forked from it (a loader's)."""

    def __init__(self) -> None:
        self._said = mmap.mmap(-1, 1)  # memory that forked processes share

    def warn(self, line: str) -> None:
        """Print `line` on stderr the first time."""
        if self._said[0]:
            return
        self._said[0] = 1
        if multiprocessing.parent_process() is not None:  # the bars are the parent's, and so may their lock be
            complain(f"warning: {line}")
            return
        with tqdm.external_write_mode(file=sys.stderr):
            complain(f"warning: {line}")

    def reset(self) -> None:
        """Let it be said again."""
        self._said[0] = 0
