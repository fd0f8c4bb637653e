"""How long nothing has come, for sources that have no end of their own."""

import time

_LONGEST = 1.0  # seconds of a look; in the rest the process was held, or inspected what had come


class IdleClock:
    """Counts the seconds of looking in vain; those in which this process itself stood still are not counted.

    After such a pause the thread that brings files or frames has not had its turn yet. `limit` is in seconds, None for
    no end.
    """

    def __init__(self, limit: float | None):
        self._limit = limit
        self.start_again()

    def start_again(self) -> None:
        """Count from 0: something has come."""
        self._idle, self._looked = 0.0, time.monotonic()

    def is_over(self) -> bool:
        """Whether nothing has come for the limit. To be called after each look in vain."""
        now = time.monotonic()
        self._idle += min(now - self._looked, _LONGEST)
        self._looked = now
        return self._limit is not None and self._idle >= self._limit
