"""Files below a root: images of a folder or pattern, and masks of images by their stems. Opens no image."""

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, lru_cache
from glob import iglob
from pathlib import Path
from typing import Any

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.listing import entries, image_files, is_image, is_left_out
from uniad_lightning.data.layouts.skipped import skip
from uniad_lightning.errors import InputError
from uniad_lightning.files.within import stays_within


def on_disk(path: Path) -> Path:
    """`path` as spelt on the disk, possibly in another form of Unicode; unchanged where it does not exist."""
    if str(path).isascii() or os.path.lexists(path):
        return path
    parent = on_disk(path.parent)
    try:
        spelt = _spellings(parent, os.stat(parent).st_mtime_ns)
    except OSError:
        return path
    return parent / spelt.get(composed(path.name), path.name)


@lru_cache(maxsize=64)  # lists name many files of one folder
def _spellings(folder: Path, changed: int) -> dict[str, str]:
    """The names in a folder by their composed form; `changed`, its modification time, is part of the cache key."""
    return {composed(name): name for name in os.listdir(folder)}


def listed_file(root: Path, name: str) -> Path:
    """The file `name` of a list, relative to `root`; backslashes and other forms of Unicode are accepted."""
    path = on_disk(root / name)
    return path if "\\" not in name or os.path.lexists(path) else on_disk(root / name.replace("\\", "/"))


def below(folder: Path, *, without: Path | None = None, above: tuple[Path, ...] = ()) -> list[Path]:
    """The images in `folder` and its subfolders, linked ones too, sorted; without hidden ones and those in `without`.

    `above` are the parent folders of this search, so that a link back to one of them is not followed.
    """
    here = folder.resolve()
    if here in above:
        return []
    images = []
    for path, is_folder in entries(folder):
        if is_folder:
            images += [] if path == without else below(path, without=without, above=(*above, here))
        elif is_image(path):
            images.append(path)
        else:
            skip(path)
    return sorted(images)


def inside(root: Path, path: Any, key: str) -> Path:
    """`path`, which may hold wildcards, relative to `root`; InputError for one that is no text or leaves `root`."""
    if not isinstance(path, str) or not path:
        raise InputError(f"{key}: got {path!r}, expected a folder, file or glob; quote a number")
    relative, base = on_disk(Path(path)), Path(os.path.abspath(root))
    if relative.is_relative_to(base):
        relative = relative.relative_to(base)
    if not stays_within(relative):
        raise InputError(
            f"{key}: '{path}' leaves data.root={base}; give a path below it, or a data.root that holds all"
        )
    return relative


def matches(root: Path, patterns: Any, *, key: str, without: Path | None = None) -> list[Path]:
    """The images that one pattern or several match, each once, sorted; none for None.

    A pattern is a folder, which means all images `below` it but those in `without`, a file, or a glob of either.
    `**` stands for any number of folders.

    Raises InputError for an empty list and for a pattern that is no text, leaves `root` or matches no image.
    """
    if patterns is None:
        return []
    listed = patterns if isinstance(patterns, Sequence) and not isinstance(patterns, str) else [patterns]
    if not listed:
        raise InputError(f"{key}: the list is empty; give a folder, file or glob below data.root")
    images: set[Path] = set()
    for pattern in listed:
        relative = inside(root, pattern, key)
        # An existing name is not taken for a glob: `bottle [2]` may be a folder.
        named = on_disk(root / relative)
        matched: set[Path] = set()
        for path in [named] if named.exists() else _globbed(root, relative):
            if path.is_dir():
                matched.update(below(path, without=without))
            elif is_image(path):
                matched.add(path)
            elif not is_left_out(path.name):
                skip(path)
        if not matched:
            raise InputError(f"{key}: '{pattern}' matches no image in {root}; give a folder, file or glob below it")
        images |= matched
    return sorted(images)


def _globbed(root: Path, pattern: Path) -> Iterator[Path]:
    """Paths that a glob matches in any form of Unicode, without hidden folders and those left by systems."""
    text = str(pattern)
    for form in dict.fromkeys((text, composed(text), unicodedata.normalize("NFD", text))):
        for hit in map(Path, iglob(form, root_dir=root, recursive=True)):
            if not any(is_left_out(part) and part not in pattern.parts for part in hit.parts):
                yield root / hit


def masks_by_stem(images: Iterable[tuple[str, Path]], *, masks: Path, root: Path) -> dict[Path, Path]:
    """The mask of each image: `<stem>_mask` or `<stem>` with any suffix. `images` are pairs of defect and image.

    It lies in the folder `masks` or in a subfolder named as the defect or as the end of the image's own folder: that of
    `root/bottle/scrap/dent/000.png` in `masks/dent`, `masks/scrap/dent` or `masks/bottle/scrap/dent`.

    Raises InputError for an image without mask or with two, and for a mask that fits two images.
    """
    listed = cache(image_files)
    paired: dict[Path, Path] = {}
    owner: dict[Path, Path] = {}
    for kind, image in images:
        parents = image.parent.relative_to(root).parts
        ends = [masks.joinpath(*parents[start:]) for start in reversed(range(len(parents)))]
        places = dict.fromkeys(map(on_disk, [masks / kind, *ends, masks]))
        names = (f"{composed(image.stem)}_mask", composed(image.stem))
        fitting = [listed(place)[name] for place in places for name in names if name in listed(place)]
        fitting = [mask for mask in fitting if mask != image]
        if not fitting:
            raise InputError(
                f"{image}: the defective image has no mask; expected {masks / kind / names[0]}.png or "
                f"{masks / names[0]}.png (any image suffix, with or without _mask), or give no masks for the category"
            )
        if len(fitting) > 1:
            raise InputError(f"{image}: two masks, {fitting[0]} and {fitting[1]}; keep one")
        paired[image] = fitting[0]
        other = owner.setdefault(fitting[0], image)
        if other != image:
            raise InputError(
                f"{fitting[0]}: the mask fits both {other} and {image}; rename one image and its mask, or put masks "
                "into subfolders named as those of the images"
            )
    return paired
