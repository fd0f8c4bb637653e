"""Signals: they end what has no end of its own, and nothing that belongs together comes apart."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# The last is that of a terminal that was closed; Windows does not have it.
_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@contextmanager
def stopping(stop: Callable[[], None] | None) -> Iterator[None]:
    """Within this, the first SIGINT, SIGTERM or SIGHUP calls `stop`; the next one does what it did before.

    Does nothing without `stop`, outside of the main thread, and for signals that are ignored, as SIGINT is in a
    background process of a shell.
    """
    if stop is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    given = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: handler for number, handler in given.items() if handler not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(number: int, frame: FrameType | None) -> None:
        restore()
        stop()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


@contextmanager
def interrupt_held_back() -> Iterator[None]:
    """Within this no SIGINT interrupts: one that arrives does so at the end. Does nothing outside of the main thread.

    For steps of which either all are done or none, and that take a moment only.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    arrived: list[FrameType | None] = []

    def keep(_: int, frame: FrameType | None) -> None:
        arrived.append(frame)

    signal.signal(signal.SIGINT, keep)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is keep:  # else another signal has set it for what follows
            signal.signal(signal.SIGINT, before)
        if arrived:
            before(signal.SIGINT, arrived[0])
