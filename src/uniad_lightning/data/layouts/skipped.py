"""What the listings skip, take for masks by a name, or list without masks: collected for one warning."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path


class SkippedFiles:
    """The files that were skipped, the folders that were taken for masks, and the data that have none.

    Attributes:
        others: files without the suffix of an image.
        beside: images beside the folders of images, which have no label.
        masks: folders taken for masks by a name that may mean something else.
        without_masks: folders of data without the folder of masks.
    """

    def __init__(self) -> None:
        self.others: set[Path] = set()
        self.beside: set[Path] = set()
        self.masks: set[Path] = set()
        self.without_masks: set[Path] = set()

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
        if self.without_masks:
            folders = ", ".join(map(str, sorted(self.without_masks)))
            verb = "is" if len(self.without_masks) == 1 else "are"
            parts.append(f"no masks, so there are image metrics and no pixel metrics: {folders} {verb} missing")
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


def note_without_masks(folder: Path) -> None:
    """Note the missing folder of the masks of defective images."""
    skipped = _COLLECTED.get()
    if skipped is not None:
        skipped.without_masks.add(folder)
