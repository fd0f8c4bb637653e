"""Room for the batches that loading processes hand over in shared memory: without it the system kills them."""

import os
from typing import TYPE_CHECKING

from uniad_lightning.errors import print_stderr

if TYPE_CHECKING:
    from uniad_lightning.data.datamodule import UnifiedDataModule

FOLDER = "/dev/shm"  # of Linux; a container has 64 MB of it by default
_AHEAD = 2  # batches that each process of a DataLoader keeps ready


def loading_processes(data: "UnifiedDataModule") -> int:
    """How many processes load the images of `data`: its `num_workers`, or fewer where their batches have no room."""
    height, width = data.image_size
    image = height * width * data.framing.count * (3 * 4 + 1)  # float32 of three channels, and a mask
    versions = 1 if data.defects is None else 3  # as they are, and damaged
    return workers_with_room(data.num_workers, max(data.batch_size, data.eval_batch_size) * image * versions)


def workers_with_room(workers: int, batch_bytes: int) -> int:
    """`workers`, or as many as have room in shared memory for their batches, after a warning that says so."""
    if not workers:
        return 0
    try:
        free = os.statvfs(FOLDER)
    except (OSError, AttributeError):  # another system
        return workers
    room = free.f_bavail * free.f_frsize // (_AHEAD * batch_bytes)
    if room >= workers:
        return workers
    print_stderr(
        f"warning: {FOLDER} has room for the batches of {room} of {workers} loading processes, the others are left out "
        f"(data.num_workers); docker run --shm-size=1g gives more"
    )
    return room
