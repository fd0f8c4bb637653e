"""What uvicorn hands to a new worker process. Imports nothing heavy: until it is read, the worker is deaf."""

import asyncio
import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from uniad_lightning.errors import InputError, print_stderr
from uniad_lightning.serving.settings import Settings

KEEP_ALIVE = 10  # seconds of an idle connection, and of one whose request does not begin


class PatientProtocol(H11Protocol):
    """Closes connections on which no request begins in time, for which uvicorn has no limit."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        self.loop.call_later(KEEP_ALIVE, self._close_unless_used, None)

    def _close_unless_used(self, before: object) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is before and (self.cycle is None or self.cycle.response_complete):
            self.transport.close()
        else:
            self.loop.call_later(KEEP_ALIVE, self._close_unless_used, self.cycle)


@dataclass(frozen=True)
class Worker:
    """Makes the application of one of several processes, in that process."""

    settings: Settings

    def __call__(self) -> Any:
        """Called by uvicorn; returns a FastAPI application."""
        stop_with_parent()
        import torch

        from uniad_lightning.serving.app import create_app
        from uniad_lightning.serving.served_model import ServedModel

        torch.set_num_threads(max(torch.get_num_threads() // self.settings.workers, 1))
        try:
            return create_app(self.settings, ServedModel.load(self.settings))
        except InputError as error:  # the file was spoilt since the others began; they go on
            print_stderr(str(error))
            sys.exit(1)


def stop_with_parent() -> None:
    """From now on this process ends with its parent: it would hold the port, or a model, for nobody."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
