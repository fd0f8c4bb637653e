"""Room for the batches that loading processes hand over in shared memory: without it the system kills them."""

import os

from uniad_lightning.errors import print_stderr

FOLDER = "/dev/shm"  # of Linux; a container has 64 MB of it by default
_AHEAD = 2  # batches that each process of a DataLoader keeps ready


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
