"""What is wrong with a `data.root` without categories: a level too high or too low, images alone, or nothing in it."""

import shlex
from collections.abc import Callable
from pathlib import Path

from uniad_lightning.data.layouts.listing import any_folder, entries, folders, is_image


def why_no_category(root: Path, is_category: Callable[[Path], bool]) -> str:
    """The rest of a message on the folder `root`, with the `data.root` to give where there is one nearby."""
    here = root.absolute()
    above = next((folder for folder in here.parents[:2] if is_category(folder)), None)
    if above is not None:
        return f"; it is a part of the category {above.name}: give {_as_root(above)}"
    for folder in folders(here):
        if any_folder(folder, is_category):
            return f"; the categories lie one level lower: give {_as_root(folder)}"
    images = sum(is_image(path) for path, is_folder in entries(here) if not is_folder)
    if images:
        return f"; it holds {images} image{'s' * (images > 1)} but not in such folders"
    return "" if entries(here) else "; it is empty"


def _as_root(folder: Path) -> str:
    return shlex.quote(f"data.root={folder}")
