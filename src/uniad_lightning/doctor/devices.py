"""Processors and GPUs, and why there is no GPU."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from uniad_lightning.data.feature_cache.loader import usable_cores
from uniad_lightning.doctor.findings import NOTE, OK, Finding
from uniad_lightning.errors import one_line

_DRIVER = Path("/proc/driver/nvidia/version")  # of Linux, where a driver is loaded
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def devices() -> Iterator[Finding]:
    """The cores and threads, and each kind of GPU that torch knows of here."""
    cores, threads = usable_cores(), torch.get_num_threads()
    found = f"{_counted(cores, 'core')}, {_counted(threads, 'thread')}"
    if threads > cores:
        yield Finding(NOTE, "CPU", found, f"more threads than cores are slower: set OMP_NUM_THREADS={cores}")
    else:
        yield Finding(OK, "CPU", found)
    if torch.cuda.is_available():
        for place in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(place)
            yield Finding(OK, f"CUDA {place}", f"{device.name}, {device.total_memory / 2**30:.0f} GiB")
    else:
        yield Finding(NOTE, "CUDA", *_why_no_cuda())
    if sys.platform == "darwin":
        available = torch.backends.mps.is_available()
        remedy = "" if available else "needs macOS 12.3 or newer and a torch built for it"
        yield Finding(OK if available else NOTE, "MPS", "available" if available else "not available", remedy)


def _counted(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _why_no_cuda() -> tuple[str, str]:
    """Why torch has no CUDA here, and what to do."""
    if torch.version.cuda is None:
        kind = "ROCm" if torch.version.hip else "no GPU"
        return f"torch {torch.__version__} is built for {kind}", "for one install torch as pytorch.org says"
    if os.environ.get(_VISIBLE) in ("", "-1"):
        return f"{_VISIBLE}={os.environ[_VISIBLE]} hides every GPU", f"unset {_VISIBLE}"
    if sys.platform == "linux" and not _DRIVER.is_file():
        return "no NVIDIA driver is loaded", "for a GPU install the driver; in a container run it with --gpus all"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return (
            f"torch is built for CUDA {torch.version.cuda} and cannot use it ({one_line(error)})",
            "update the driver",
        )
    return f"torch is built for CUDA {torch.version.cuda} and finds no GPU", "look at nvidia-smi"
