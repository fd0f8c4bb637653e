"""Which files of a watched folder were taken: each is taken once, and again when another file replaces it."""

from hashlib import blake2b
from pathlib import Path
from threading import Lock

from uniad_lightning.prediction.sources.arrivals import FileState
from uniad_lightning.prediction.sources.items import Digests, key_of


class Taken:
    """The files that were taken, in a few times eight bytes for each; safe to use from several threads.

    Another size or time means another file. Where they are the same, but inode or ctime differ, only the attributes may
    have changed: then the content decides. Where the content was not read, as an earlier call has its row, it is
    another file if the system has told so and the inode differs: a share that comes back may number its files anew.
    """

    def __init__(self) -> None:
        self._known = Digests()
        self._lock = Lock()

    def once(self, key: str) -> bool:
        """Take an entry that is not a file; whether it is taken for the first time."""
        with self._lock:
            return self._known.add(f"other\0{key}")

    def is_known(self, name: str, now: FileState) -> bool:
        """Whether the file was taken, or recognised as a taken one, in this state."""
        with self._lock:
            return _state(name, now) in self._known

    def version(self, name: str, now: FileState, path: Path, *, told: bool) -> str | None:
        """Take a file: its version among those of the same size and time, empty for the first; None if taken before.

        `told` is whether there was an event of its arrival.
        """
        key = key_of(name, now.size, now.mtime_ns)
        with self._lock:
            if not self._known.add(_state(name, now)):
                return None
            other_file = self._known.add(f"file\0{now.inode}\0{key}")
            if self._known.add(f"key\0{key}"):
                return ""
            was_read = f"read\0{key}" in self._known
        if not (self._is_new(key, path) if was_read else other_file and told):
            return None
        return f"{now.inode} {now.ctime_ns}"

    def was_read(self, name: str, now: FileState, path: Path) -> None:
        """Remember the content of a file that was decoded."""
        key = key_of(name, now.size, now.mtime_ns)
        self._is_new(key, path)
        with self._lock:
            self._known.add(f"read\0{key}")

    def _is_new(self, key: str, path: Path) -> bool:
        """Whether no file of this key had this content when it was read."""
        try:
            content = blake2b(path.read_bytes(), digest_size=16).hexdigest()
        except OSError:  # it is gone; there will be an event of its replacement
            return False
        with self._lock:
            return self._known.add(f"content\0{content}\0{key}")


def _state(name: str, now: FileState) -> str:
    return f"state\0{name}\0{now}"
