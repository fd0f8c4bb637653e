"""A warning that may apply to many images, printed once with the first of them."""

import mmap
import multiprocessing
import sys

from tqdm import tqdm

from uniad_lightning.errors import print_stderr


class Once:
    """A warning that is printed once by this process and those forked from it, such as a loader's."""

    def __init__(self) -> None:
        self._printed = mmap.mmap(-1, 1)  # memory that forked processes share

    def warn(self, line: str) -> None:
        """Print `line` on stderr the first time."""
        if self._printed[0]:
            return
        self._printed[0] = 1
        if multiprocessing.parent_process() is not None:  # the progress bars and their lock belong to the parent
            print_stderr(f"warning: {line}")
            return
        with tqdm.external_write_mode(file=sys.stderr):
            print_stderr(f"warning: {line}")

    def reset(self) -> None:
        """Allow the warning again."""
        self._printed[0] = 0
