"""Text files written by other systems: lists of images, tables."""

import codecs
from pathlib import Path


def read_text(file: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark, as Windows saves it; without the mark.

    Raises OSError for a file that cannot be read, UnicodeDecodeError for one in another encoding.
    """
    raw = file.read_bytes()
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if marked else "utf-8-sig")
