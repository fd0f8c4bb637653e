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

_MOMENT = 1.0  # seconds


@contextmanager
def without_warnings() -> Iterator[None]:
    """Without warnings of Pillow and watchdog: a row has the error, or they do not matter here."""
    with warnings.catch_warnings():
        for package in ("PIL", "watchdog"):
            warnings.filterwarnings("ignore", module=package)
        yield


@contextmanager
def counted_bar(source: Source, processes: Processes, batch_size: int, *, shown: bool) -> Iterator[tqdm]:
    """A progress bar of the first process; its total is set when a thread beside the work has counted the images.

    At the end the thread is waited for: one that still runs when Python shuts down can abort the whole process. After
    an error or an interrupt that is for a moment only, since the counting may take as long as the work would have.
    """
    shown = shown and processes.first
    among = f" (1 of {processes.count} processes)" if processes.count > 1 else ""
    with progress_bar(f"predict{among}", shown=shown) as bar:
        counting = threading.Thread(target=_count, args=(source, processes, batch_size, bar), daemon=True)
        if not shown:
            yield bar
            return
        counting.start()
        try:
            yield bar
        except BaseException:
            counting.join(_MOMENT)
            raise
        counting.join()


def _count(source: Source, processes: Processes, batch_size: int, bar: tqdm) -> None:
    try:
        total = source.total()
    except InputError:  # the main thread meets and reports the same error
        return
    bar.total = None if total is None else processes.share(total, batch_size)
