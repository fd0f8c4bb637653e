"""The interface of a sink, and the row that it gets."""

import json
from typing import NamedTuple, Protocol

from uniad_lightning.prediction.rows import Row

PATIENCE = 10.0  # seconds in which a receiver has to take a row


class NotTakenError(Exception):
    """The receiver has not taken a row; the message is the reason, in a few words. It is tried again."""


class Delivery(NamedTuple):
    """A row and its `id`: the same in each try, and another for every other row of any run."""

    id: str
    row: Row

    @property
    def body(self) -> bytes:
        """The row as JSON, with its id in front; bytes of a name that are not valid text are escaped."""
        return json.dumps({"id": self.id, **self.row}).encode()


class Sink(Protocol):
    """Takes rows one by one, in a thread of its own. `shown` names it in messages and files, without secrets."""

    shown: str

    def deliver(self, delivery: Delivery) -> None:
        """Return once the receiver has taken the row. Raises NotTakenError where it has not, in bounded time."""

    def close(self) -> None:
        """Close files and connections; called once, when no row is being delivered."""
