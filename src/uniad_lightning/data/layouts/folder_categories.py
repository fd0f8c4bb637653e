"""The categories of a user's own images: folders under a root, or folders and globs given for each category."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.layouts.category_names import check_names, composed
from uniad_lightning.data.layouts.listing import LayoutError, folders, named_folders, skip_images_in
from uniad_lightning.data.layouts.mask_names import is_mask_folder
from uniad_lightning.data.layouts.patterns import below, inside, matches, on_disk
from uniad_lightning.data.layouts.skipped import note_mask_folder
from uniad_lightning.data.layouts.wrong_level import why_no_category
from uniad_lightning.data.records import GOOD
from uniad_lightning.errors import InputError, did_you_mean

DEFECTIVE = "defective"  # the kind of defect where no folder names it
KEY = "data.source.products"
PARTS = ("good", "defective", "test_good", "masks")  # the keys of a category
_MASK_FOLDERS = ("mask", "masks", "ground_truth")  # folders of masks without doubt, of which no note is made
_SPLITS = ("train", "training", "test", "testing", "test_public", "val", "valid", "validation")


class CategoryImages(NamedTuple):
    """The files of one category.

    Attributes:
        name: of the category.
        good: good images to train on, and to test on unless there are `test_good`.
        test_good: good images to test on.
        defective: kind of defect and image.
        masks: folder of the masks; None without masks.
    """

    name: str
    good: list[Path]
    test_good: list[Path]
    defective: list[tuple[str, Path]]
    masks: Path | None


Reader = Callable[[], CategoryImages]


def read_folders(root: Path) -> dict[str, Reader]:
    """A reader for each folder with `good` in it, by its name: those in `root`, or `root` itself."""
    by_name = {name: folder for name, folder in named_folders(root).items() if (folder / GOOD).is_dir()}
    if (root / GOOD).is_dir():
        for folder in by_name.values():
            raise InputError(
                f"data.root: both {root / GOOD} and {folder / GOOD} are there, so it is one category and contains "
                "some; move one away"
            )
        by_name = {
            composed(Path(os.path.abspath(root)).name): root
        }  # not `resolve`: a linked folder has the link's name
    split = [name for name, folder in by_name.items() if folder != root and name.casefold() in _SPLITS]
    if split:
        raise LayoutError(
            f"data.root: {root.absolute()} holds {' and '.join(split)}, the splits of one category, and no categories"
        )
    if not by_name:
        raise LayoutError(
            f"data.root: {root.absolute()} holds no category; expected good/ in it or in its folders, with a folder "
            f"for each kind of defect beside it; or give {KEY}{why_no_category(root, is_category)}"
        )
    check_names({name: str(folder.absolute()) for name, folder in by_name.items()})
    return {name: partial(_read_folder, name, folder) for name, folder in by_name.items()}


def is_category(folder: Path) -> bool:
    """Whether `good` is in `folder`, and its name is not that of a split of another layout."""
    return (folder / GOOD).is_dir() and folder.absolute().name.casefold() not in _SPLITS


def refuse_left_out(root: Path) -> None:
    """Raises InputError for a folder beside the categories that has images, but no `good`."""
    for folder in [] if (root / GOOD).is_dir() else folders(root):
        if not (folder / GOOD).is_dir() and below(folder):
            raise InputError(
                f"{folder}: has images, but no folder {GOOD}, so it is no category; rename the folder of its good "
                "images, move it away, or name the categories by data.categories"
            )


def _read_folder(name: str, folder: Path) -> CategoryImages:
    """The files of a category in `folder`."""
    good = below(folder / GOOD)
    skip_images_in(folder)
    if not good:
        raise InputError(f"{folder / GOOD}: no image in it; {name} needs its good images there")
    kinds = {kind: path for kind, path in named_folders(folder).items() if kind != GOOD}
    masks = [kinds.pop(kind) for kind in sorted(kinds, reverse=True) if is_mask_folder(kind)]
    masks = [path for path in masks if below(path) or not any(path.iterdir())]  # not a folder of labels in .txt
    if len(masks) > 1:
        raise InputError(
            f"{folder}: both {' and '.join(path.name for path in masks)} are there; keep the masks in one of them"
        )
    defective = [(kind, image) for kind, path in kinds.items() for image in below(path)]
    for path in masks:
        if not defective and any(GOOD not in mask.relative_to(path).parts for mask in below(path)):
            raise InputError(
                f"{path}: is taken for masks, by its name, but {name} has no defective image; rename it if it is a "
                "kind of defect, or move it away"
            )
        if path.name.lower() not in _MASK_FOLDERS:
            note_mask_folder(path)
    return CategoryImages(name, good, [], defective, masks[0] if masks else None)


def read_patterns(root: Path, products: Mapping[str, Mapping]) -> dict[str, Reader]:
    """A reader for each category of `products`; InputError for invalid names and keys."""
    example = f"'{KEY}={{bottle:{{good:bottle/ok,defective:bottle/scrap}}}}'"
    if not isinstance(products, Mapping) or not products:
        raise InputError(f"{KEY}: got {products}, expected names and their images, such as {example}")
    for name, parts in products.items():
        if not isinstance(name, str):
            raise InputError(f"{KEY}: the name {name!r} is no text; quote it")
        if not isinstance(parts, Mapping):
            raise InputError(f"{KEY}.{name}: got {parts}, expected {', '.join(PARTS)}, such as {example}")
        for part in parts:
            if part not in PARTS:
                raise InputError(
                    f"{KEY}.{name}: no key '{part}'.{did_you_mean(str(part), PARTS)} Keys: {', '.join(PARTS)}"
                )
        if parts.get(GOOD) is None:
            raise InputError(f"{KEY}.{name}: no '{GOOD}'; give the folder or glob of its good images")
    named = {composed(name.lstrip(" ")): parts for name, parts in products.items()}
    check_names({name: KEY for name in named})
    return {name: partial(_read_patterns, root, name, parts) for name, parts in named.items()}


def _read_patterns(root: Path, name: str, parts: Mapping) -> CategoryImages:
    """The files of a category that the patterns in `parts` match."""
    key = f"{KEY}.{name}"
    masks = None
    if parts.get("masks") is not None:
        masks = on_disk(root / inside(root, parts["masks"], f"{key}.masks"))
        if not masks.is_dir():
            raise InputError(f"{key}.masks: {masks} is no folder; give the folder that holds the masks")
    good, test_good, defective = (
        matches(root, parts.get(part), key=f"{key}.{part}", without=masks) for part in ("good", "test_good", DEFECTIVE)
    )
    unnamed = {root, *(image.parent for image in good + test_good)}

    def kind(image: Path) -> str:
        folder = composed(image.parent.name)
        return DEFECTIVE if image.parent in unnamed or folder == name else folder

    return CategoryImages(name, good, test_good, [(kind(image), image) for image in defective], masks)
