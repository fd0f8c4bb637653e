"""Files of folders that do not have the suffix of an image, counted by suffix, to be reported."""

import mimetypes
import os
from collections import Counter

_TYPES = mimetypes.MimeTypes(filenames=())  # those of Python, not of the system
# Images without a registered type: raw formats of cameras, and formats of other fields.
_IMAGES = frozenset(
    {
        ".arw", ".avif", ".cr2", ".cr3", ".dcm", ".dng", ".exr", ".hdr", ".heic", ".heif", ".hif", ".jp2", ".jxl",
        ".nef", ".orf", ".psd", ".raf", ".raw", ".rw2", ".tga",
    }
)  # fmt: skip
_BEGINNINGS = (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
_BRANDS = (b"heic", b"heix", b"mif1", b"avif")
_LONGEST = 16  # letters of a suffix
_SHOWN = 10  # suffixes
_OPENED = 100  # files of one suffix whose first bytes are read


class PassedOver:
    """The files that `walk` has passed over.

    Attributes:
        counts: files by suffix, in lower case; those without one by an empty text.
        images: of these, those that are images all the same, by their type or their first bytes.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.images: Counter[str] = Counter()

    def note(self, path: str) -> None:
        """Count a file."""
        suffix = os.path.splitext(path)[1].lower()
        if suffix[1:].isdigit() or len(suffix) > _LONGEST:
            suffix = ""  # frame.0001: each number would be a suffix
        self.counts[suffix] += 1
        if self._is_image(path, suffix):
            self.images[suffix] += 1

    def summary(self) -> str:
        """The files that were passed over, and what to do about images; empty where there are none."""
        if not self.counts:
            return ""
        others = f"passed over, not images by their suffix: {_listed(self.counts)}"
        if not self.images:
            return others
        return (
            f"{others}; of these {_listed(self.images)} are images all the same: save them as PNG, or give them the "
            "suffix of what they are"
        )

    def _is_image(self, path: str, suffix: str) -> bool:
        kind = _TYPES.guess_type(f"x{suffix}", strict=False)[0] or "application/octet-stream"
        if suffix in _IMAGES or kind.startswith("image/"):
            return True
        if kind != "application/octet-stream" or (self.counts[suffix] > _OPENED and not self.images[suffix]):
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
    """`suffix`, quoted where it has blanks or unusual letters: '.png '."""
    if not suffix:
        return "without suffix"
    return suffix if suffix[1:].isalnum() and suffix.isascii() else ascii(suffix)
