"""The thread that counts the images of a progress bar is over when the bar is."""

import threading
import time

import pytest

from uniad_lightning.prediction.processes import ALONE
from uniad_lightning.prediction.progress import counted_bar
from uniad_lightning.prediction.sources.items import Source


def slow():
    time.sleep(0.3)
    return 7


def test_no_thread_is_left_and_the_total_is_known():
    before = threading.active_count()
    with counted_bar(Source(iter([]), slow), ALONE, 1, shown=True) as bar:
        bar.update(0)
    assert threading.active_count() - before <= 1  # tqdm's own monitor
    assert bar.total == 7


def test_an_interrupt_does_not_wait_for_a_long_count():
    ended = threading.Event()
    with pytest.raises(KeyboardInterrupt), counted_bar(Source(iter([]), ended.wait), ALONE, 1, shown=True):
        raise KeyboardInterrupt
    ended.set()
