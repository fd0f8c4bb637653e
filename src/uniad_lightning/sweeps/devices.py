"""One GPU for each of the trainings that run at the same time on a machine."""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from uniad_lightning.errors import print_stdout

_WAIT = 1.0  # seconds between two tries


def visible_gpus() -> list[str]:
    """An identifier of each GPU visible to this process, the same in all processes, whatever its number in them."""
    # A part of a GPU (MIG) is identified by the name that made it visible: only one is visible, under number 0.
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return [
        named[number]
        if number < len(named) and named[number].startswith("MIG-")
        else str(torch.cuda.get_device_properties(number).uuid)
        for number in range(torch.cuda.device_count())
    ]


@contextmanager
def claimed(gpus: Sequence[str], *, folder: Path | None = None) -> Iterator[int]:
    """Claim one of `gpus` (identifiers) that no other process has claimed; yields its position, waits for a free one.

    Claims are locked files in `folder`, by default one per user below the temporary folder; they end with the process.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"uniad-devices-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    locks = [FileLock(folder / gpu.replace(os.sep, "-")) for gpu in gpus]
    waiting = False
    while True:
        for number, lock in enumerate(locks):
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            try:
                if waiting:
                    print_stdout(f"continues with GPU {number} ({gpus[number]})", flush=True)
                yield number
            finally:
                lock.release()
            return
        if not waiting:
            which = "the GPU that is" if len(gpus) == 1 else f"one of the {len(gpus)} GPUs that are"
            print_stdout(f"waits for {which} visible, used by other runs of a sweep ({folder})", flush=True)
        waiting = True
        time.sleep(_WAIT)
