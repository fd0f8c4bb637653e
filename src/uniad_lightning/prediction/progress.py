"""The progress bar of a prediction, whose total is counted while it runs."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from uniad_lightning.errors import InputError
from uniad_lightning.prediction.processes import Processes
from uniad_lightning.prediction.sources.items import Source
from uniad_lightning.progress_bar import progress_bar


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without warnings of Pillow and watchdog: a row has the error, or they do not matter here."""
    with warnings.catch_warnings():
        for package in ("PIL", "watchdog"):
            warnings.filterwarnings("ignore", module=package)
        yield


@contextmanager
def counted_bar(source: Source, processes: Processes, batch_size: int, *, shown: bool) -> Iterator[tqdm]:
    """A progress bar of the first process; its total is set when a thread beside the work has counted the images."""
    shown = shown and processes.first
    among = f" (1 of {processes.count} processes)" if processes.count > 1 else ""
    with progress_bar(f"predict{among}", shown=shown) as bar:
        if shown:
            threading.Thread(target=_count, args=(source, processes, batch_size, bar), daemon=True).start()
        yield bar


def _count(source: Source, processes: Processes, batch_size: int, bar: tqdm) -> None:
    try:
        total = source.total()
    except InputError:  # the main thread meets and reports the same error
        return
    bar.total = None if total is None else processes.share(total, batch_size)
