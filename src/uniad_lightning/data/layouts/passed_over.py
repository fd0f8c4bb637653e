"""What the listings pass over, and what they take for masks: noted while they run, so that it can be said."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


class PassedOver:
    """The files that were passed over, and folders that were taken for masks.

    Attributes:
        others: files whose suffix is none of an image.
        beside: images that lie beside the folders of images, where no label can be told.
        masks: folders that hold masks by a name that may mean something else.
    """

    def __init__(self) -> None:
        self.others: set[Path] = set()
        self.beside: set[Path] = set()
        self.masks: set[Path] = set()

    def __str__(self) -> str:
        """One line, which is empty where nothing was passed over."""
        parts = []
        if self.others:
            suffixes = Counter(path.suffix.lower() or "without suffix" for path in self.others)
            counted = ", ".join(f"{suffix} {count}" for suffix, count in sorted(suffixes.items()))
            first = min(self.others)
            parts.append(f"passed over, since the suffix is none of an image: {counted} (such as {first})")
        if self.beside:
            parts.append(
                f"passed over, since they lie beside the folders of good and defective images: {len(self.beside)} "
                f"(such as {min(self.beside)})"
            )
        if self.masks:
            folders = ", ".join(map(str, sorted(self.masks)))
            parts.append(f"taken for masks, by the name: {folders}; rename what is a kind of defect")
        return "; ".join(parts)


_COUNTING: ContextVar[PassedOver | None] = ContextVar("counting", default=None)


@contextmanager
def counting() -> Iterator[PassedOver]:
    """What listings pass over inside the `with`."""
    found = PassedOver()
    token = _COUNTING.set(found)
    try:
        yield found
    finally:
        _COUNTING.reset(token)


def pass_over(path: Path) -> None:
    """Count a file that is no image by its suffix."""
    found = _COUNTING.get()
    if found is not None:
        found.others.add(path)


def leave_beside(path: Path) -> None:
    """Count an image that lies beside the folders of images."""
    found = _COUNTING.get()
    if found is not None:
        found.beside.add(path)


def take_for_masks(folder: Path) -> None:
    """Note a folder that holds masks by a name that may mean something else."""
    found = _COUNTING.get()
    if found is not None:
        found.masks.add(folder)
