"""Names of folders and files of masks, so that no mask is taken for an image."""

import re
from collections.abc import Iterable
from pathlib import Path

from uniad_lightning.data.layouts.category_names import composed

_WORD = r"(?:masks?|masken?|gts?|ground[\W_]*truths?|labels?|annot(?:ation)?s?|seg(?:mentation)?s?)"
_FOLDER = re.compile(
    rf"(?:(?:defect|anomal(?:y|ies)|binary|pixel|true|{_WORD})[\W_]*)?{_WORD}(?:[\W_]*(?:images?|imgs?))?"
)
_BEHIND = re.compile(rf"(.+?)(?:[\W_]+|(?<=\d)){_WORD}[\W_]*\d*[\W_]*")
_BEFORE = re.compile(rf"{_WORD}[\W_]+(.+)")


def is_mask_folder(name: str) -> bool:
    """Whether a folder of this name holds masks, such as `masks`, `GT`, `ground-truth`, `Labels`, `defect_masks`."""
    return _FOLDER.fullmatch(composed(name).casefold()) is not None


def masks_among(images: Iterable[Path]) -> list[Path]:
    """Those of the `images` named as masks of others, such as `000_mask.png` or `gt-000.png` beside `000.jpg`."""
    stems = {path: composed(path.stem).casefold() for path in images}
    known = set(stems.values())
    return [
        path
        for path, stem in stems.items()
        if any(match and match[1] in known for match in (_BEHIND.fullmatch(stem), _BEFORE.fullmatch(stem)))
    ]
