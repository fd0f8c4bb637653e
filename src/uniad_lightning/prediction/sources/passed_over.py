"""Files of folders that are not taken for pictures, counted by suffix, so that none is missing without a word."""

import mimetypes
import os
from collections import Counter

_TYPES = mimetypes.MimeTypes(filenames=())  # those of Python, not of the system
# Of pictures that no type is registered for: what cameras keep unprocessed, and formats of other fields.
_PICTURES = frozenset(
    {
        ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".hdr", ".heic", ".heif", ".hif", ".jp2", ".jxl",
        ".nef", ".orf", ".psd", ".raf", ".raw", ".rw2", ".tga",
    }
)  # fmt: skip
_BEGINNINGS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_BRANDS = (b"heic", b"heix", b"mif1", b"avif")
_LONGEST = 16  # letters of a suffix
_SHOWN = 10  # suffixes
_OPENED = 100  # files of one suffix, to see what they are


class PassedOver:
    """What `walk` has passed over.

    Attributes:
        counts: files by suffix, in lower case; those without one by an empty text.
        pictures: of these, those that are pictures all the same, by their type or by how they begin.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.pictures: Counter[str] = Counter()

    def note(self, path: str) -> None:
        """Count a file."""
        suffix = os.path.splitext(path)[1].lower()
        if suffix[1:].isdigit() or len(suffix) > _LONGEST:
            suffix = ""  # frame.0001: of each number there would be one
        self.counts[suffix] += 1
        if self._is_picture(path, suffix):
            self.pictures[suffix] += 1

    def line(self) -> str:
        """What was passed over, and what to do about it; empty where nothing was."""
        if not self.counts:
            return ""
        said = f"passed over, no pictures by their suffix: {_listed(self.counts)}"
        if not self.pictures:
            return said
        return (
            f"{said}; of these {_listed(self.pictures)} are pictures all the same: save them as PNG, or give them the "
            "suffix of what they are"
        )

    def _is_picture(self, path: str, suffix: str) -> bool:
        kind = _TYPES.guess_type(f"x{suffix}", strict=False)[0] or "application/octet-stream"
        if suffix in _PICTURES or kind.startswith("image/"):
            return True
        if kind != "application/octet-stream" or (self.counts[suffix] > _OPENED and not self.pictures[suffix]):
            return False
        try:
            with open(path, "rb") as file:
                head = file.read(16)
        except OSError:
            return False
        bitmap = head[:2] == b"BM" and head[6:10] == bytes(4)
        webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
        return head.startswith(_BEGINNINGS) or bitmap or webp or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


def _listed(counts: Counter[str]) -> str:
    shown = [f"{count} {_shown(suffix)}" for suffix, count in counts.most_common(_SHOWN)]
    rest = len(counts) - len(shown)
    return ", ".join([*shown, f"and {rest} more kinds"] if rest else shown)


def _shown(suffix: str) -> str:
    """`suffix` as it is, or quoted where it would not be seen as it is: '.png '."""
    if not suffix:
        return "without suffix"
    return suffix if suffix[1:].isalnum() and suffix.isascii() else ascii(suffix)
