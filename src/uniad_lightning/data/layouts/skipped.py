"""Files that the listings skip, and folders that they take for masks: collected for one warning."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


class SkippedFiles:
    """The files that were skipped, and the folders that were taken for masks.

    Attributes:
        others: files without the suffix of an image.
        beside: images beside the folders of images, which have no label.
        masks: folders taken for masks by a name that may mean something else.
    """

    def __init__(self) -> None:
        self.others: set[Path] = set()
        self.beside: set[Path] = set()
        self.masks: set[Path] = set()

    def __str__(self) -> str:
        """One line, which is empty where nothing was skipped."""
        parts = []
        if self.others:
            suffixes = Counter(path.suffix.lower() or "without suffix" for path in self.others)
            counted = ", ".join(f"{suffix} {count}" for suffix, count in sorted(suffixes.items()))
            parts.append(f"skipped, since the suffix is not an image's: {counted} (such as {min(self.others)})")
        if self.beside:
            parts.append(
                f"skipped, since they lie beside the folders of good and defective images: {len(self.beside)} "
                f"(such as {min(self.beside)})"
            )
        if self.masks:
            folders = ", ".join(map(str, sorted(self.masks)))
            parts.append(f"taken for masks, by the name: {folders}; rename a folder that is a kind of defect")
        return "; ".join(parts)


_COLLECTED: ContextVar[SkippedFiles | None] = ContextVar("skipped", default=None)


@contextmanager
def counting() -> Iterator[SkippedFiles]:
    """Collects what listings skip inside the `with`."""
    skipped = SkippedFiles()
    token = _COLLECTED.set(skipped)
    try:
        yield skipped
    finally:
        _COLLECTED.reset(token)


def skip(path: Path) -> None:
    """Note a file without the suffix of an image."""
    skipped = _COLLECTED.get()
    if skipped is not None:
        skipped.others.add(path)


def skip_beside(path: Path) -> None:
    """Note an image that lies beside the folders of images."""
    skipped = _COLLECTED.get()
    if skipped is not None:
        skipped.beside.add(path)


def note_mask_folder(folder: Path) -> None:
    """Note a folder taken for masks by a name that may mean something else."""
    skipped = _COLLECTED.get()
    if skipped is not None:
        skipped.masks.add(folder)
