"""The files below the root of a data set: those that nothing uses, names that clash, links that lead nowhere."""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.listing import is_image, is_left_out
from uniad_lightning.data.layouts.mask_names import is_mask_folder
from uniad_lightning.data.records import GOOD, Packed, Record
from uniad_lightning.data_check.findings import Finding
from uniad_lightning.data_check.looks import MaskLook
from uniad_lightning.errors import system_reason

_MASK_ENDING = "_mask"


class Tree(NamedTuple):
    """What lies below a root, without what systems left and what lies below that.

    Attributes:
        files: all files, links to files among them.
        findings: on names and links, and what systems left.
    """

    files: list[Path]
    findings: list[Finding]


def walk(root: Path) -> Tree:
    """All files below `root`, linked folders followed, each folder once."""
    files: list[Path] = []
    findings: list[Finding] = []
    left: dict[str, list[Path]] = defaultdict(list)
    seen: set[str] = set()
    waiting: list[tuple[Path, tuple[str, ...]]] = [(root, (os.path.realpath(root),))]
    while waiting:
        folder, above = waiting.pop()
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            findings.append(Finding("unreadable", folder, system_reason(error)))
            continue
        findings += _names_alike(folder, names)
        for name in names:
            path = folder / name
            real = os.path.realpath(path)
            if is_left_out(name):
                left[name].append(path)
            elif path.is_symlink() and not os.path.exists(path):
                findings.append(Finding("broken link", path, f"leads to {os.readlink(path)}, where nothing is"))
            elif not path.is_dir():
                files.append(path)
            elif real in above:
                findings.append(Finding("link to a folder above", path, f"leads back to {real}"))
            elif real not in seen:
                seen.add(real)
                waiting.append((path, (*above, real)))
    for name, paths in sorted(left.items()):
        findings.append(Finding("left by a system", paths[0], f"{len(paths)} called {name}, hidden or a system's"))
    return Tree(files, findings)


def _names_alike(folder: Path, names: Iterable[str]) -> Iterator[Finding]:
    """Names that differ in case or in the form of Unicode alone."""
    alike: dict[str, str] = {}
    for name in names:
        other = alike.setdefault(composed(name).casefold(), name)
        if other != name:
            found = f"differs from {other} in case or in the form of Unicode alone"
            yield Finding("names alike", folder / name, found, folder / other)


def unused(files: Iterable[Path], records: Iterable[Record]) -> list[Path]:
    """The `files` that are no image and no mask of any record."""
    used: set[str] = set()
    for record in records:
        image = record.image.file if isinstance(record.image, Packed) else record.image
        used |= {os.path.realpath(path) for path in (image, *record.masks)}  # a linked folder has been walked once
    return [path for path in files if os.path.realpath(path) not in used]


def check_unused(files: Iterable[Path], root: Path) -> Iterator[Finding]:
    """Images outside the folders of the layout, by folder, and files that have no image's suffix, by suffix."""
    images: dict[Path, list[Path]] = defaultdict(list)
    others: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        if not is_image(path):
            others[path.suffix.lower()].append(path)
        elif not in_mask_folder(path, root):
            images[path.parent].append(path)
    for folder, paths in sorted(images.items()):
        yield Finding("image not used", paths[0], f"{len(paths)} such images in {folder}, which no split holds")
    for suffix, paths in sorted(others.items()):
        yield Finding("suffix passed over", paths[0], f"{len(paths)} files {suffix or 'without a suffix'}")


def in_mask_folder(path: Path, root: Path) -> bool:
    """Whether a file below `root` lies in a folder of masks, by the folder's name."""
    return any(map(is_mask_folder, path.relative_to(root).parent.parts))


def check_unused_masks(masks: Iterable[MaskLook], records: Collection[Record], root: Path) -> Iterator[Finding]:
    """Masks that no record uses: of a good image where they mark something, or of no image."""
    good: dict[tuple[str, str], Path] = {}
    defective: set[tuple[str, str]] = set()
    for record in records:
        if isinstance(record.image, Path) and record.image.is_relative_to(root):
            if record.label:
                defective.add(_key(record.image, root))
            else:
                good[_key(record.image, root)] = record.image
    for mask in masks:
        key = _key(mask.path, root)
        of_good = key in good and (GOOD in mask.path.parts or key not in defective)
        if of_good and mask.share > 0:
            found = f"marks {mask.share:.1%} of an image that is labelled good"
            yield Finding("mask of a good image", mask.path, found, good[key])
        elif not of_good:
            yield Finding("mask of no image", mask.path, "no defective image has this name")


def _key(path: Path, root: Path) -> tuple[str, str]:
    """The folder in `root` in which a file lies, and its stem without the ending of masks."""
    return path.relative_to(root).parts[0], composed(path.stem).removesuffix(_MASK_ENDING)
