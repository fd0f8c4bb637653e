"""Rows to a program, which is started for each: a hook for the gateway of a PLC."""

import os
import shlex
import shutil
import signal
import subprocess
from contextlib import suppress

from uniad_lightning.errors import InputError, system_reason, without_user
from uniad_lightning.prediction.sinks.base import PATIENCE, Delivery, NotTakenError


class Command:
    """Runs `command:PROGRAM ARGUMENT ...`, without a shell, with the row as a line of JSON on its standard input.

    Status 0 within ten seconds means that the row is taken. Raises InputError where there is no such program.
    """

    def __init__(self, address: str):
        self.shown = without_user(address)
        try:
            self._words = shlex.split(address.partition(":")[2])
        except ValueError as error:
            raise InputError(f"sink={self.shown}: cannot be divided into words ({error}); check its quotes") from None
        if not self._words or shutil.which(self._words[0]) is None:
            raise InputError(f"sink={self.shown}: no such program; give its path, and make it executable")

    def deliver(self, delivery: Delivery) -> None:
        """Run the program and wait for its end; one that takes too long is killed with what it has started."""
        try:
            # A session of its own: Ctrl+C on the terminal is for us alone.
            process = subprocess.Popen(
                self._words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise NotTakenError(system_reason(error)) from None
        try:
            _, said = process.communicate(delivery.body + b"\n", timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            if os.name == "posix":
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise NotTakenError(f"has not ended within {PATIENCE:g} seconds") from None
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            raise NotTakenError(f"status {process.returncode}{f': {lines[-1][:100]}' if lines else ''}")

    def close(self) -> None:
        """Nothing is open."""
