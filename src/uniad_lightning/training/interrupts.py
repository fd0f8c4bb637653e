"""No interrupt is lost, wherever the main thread is when it arrives.

In a finaliser, or in a callback of a weak reference or from C, Python can only print "Exception ignored" for a
KeyboardInterrupt and continue, and a training would continue for hours.
"""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_AGAIN = 0.1  # seconds until a dropped interrupt is sent again

_arrived = False


@contextmanager
def keep_interrupts() -> Iterator[None]:
    """Within this, an interrupt that Python drops is sent again, and `end_if_interrupted` raises one that was caught.

    Does nothing where interrupts are ignored, as in a background process of a shell, or handled by other code.
    """
    global _arrived
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    report = sys.unraisablehook
    signal.signal(signal.SIGINT, _remember)
    sys.unraisablehook = lambda dropped: _send_again() if _is_interrupt(dropped) else report(dropped)
    try:
        yield
    finally:
        sys.unraisablehook = report
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _arrived = False


def end_if_interrupted() -> None:
    """Raises KeyboardInterrupt where one has arrived before and other code caught it."""
    if _arrived:
        raise KeyboardInterrupt


def _remember(number: int, frame: FrameType | None) -> None:
    global _arrived
    _arrived = True
    signal.default_int_handler(number, frame)


def _is_interrupt(dropped: Any) -> bool:
    return issubclass(dropped.exc_type, KeyboardInterrupt)


def _send_again() -> None:
    main = threading.main_thread().ident
    # From a thread and later: here, inside the callback, it would be dropped again.
    timer = threading.Timer(_AGAIN, signal.pthread_kill, (main, signal.SIGINT))
    timer.daemon = True
    timer.start()
