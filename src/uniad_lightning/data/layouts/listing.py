"""What listings of data sets share: check the root, choose categories, find images, pair masks. Opens no image.

A listing is a function `list_<layout>(root, *, categories, train_needed)` -> `Splits`; without `train_needed`, for an
evaluation, there may be no train image. Hidden files and those left by systems are ignored (`is_left_out`); other files
without the suffix of an image are counted (`skipped`). Names are compared in one form of Unicode
(`category_names.composed`), and files opened by their own.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from uniad_lightning.data.images.formats import SUFFIXES, USUAL_SUFFIXES
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.skipped import skip, skip_beside
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, did_you_mean

_LEFT_BY_SYSTEMS = frozenset(
    {
        "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "system volume information", "__macosx",
        "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip


class LayoutError(InputError):
    """The folder does not have the given layout; it may have another (`catalogue.recognise`)."""


def check_root(root: Path, expected: str) -> None:
    """Raises InputError unless `root` is a folder; `expected` describes its content for the message."""
    if not root.exists():
        raise InputError(f"data.root: {root.absolute()} does not exist; give the folder that holds {expected}")
    if not root.is_dir():
        raise InputError(
            f"data.root: {root.absolute()} is a file; give the folder that holds {expected}, unpacked if need be"
        )


def choose(wanted: Sequence[str] | None, exist: Iterable[str], root: Path) -> tuple[str, ...]:
    """The categories to use, sorted: those `wanted`, or all that `exist`; InputError for one that does not.

    `exist` are composed names.
    """
    existing = sorted(exist)
    if wanted is None:
        return tuple(existing)
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):  # a string is a sequence of strings, too
        raise InputError(f"data.categories: got '{wanted}', expected a list: 'data.categories=[{wanted}]'")
    if not wanted:
        raise InputError("data.categories: the list is empty; name a category, or give null for all of them")
    for name in wanted:
        if not isinstance(name, str):
            raise InputError(f'data.categories: {name!r} is no text; quote it, as in ["01"]')
        if composed(name) not in existing:
            hint = did_you_mean(name, existing)
            raise InputError(f"data.categories: no '{name}' in {root.absolute()}.{hint} Found: {', '.join(existing)}")
    return tuple(sorted({composed(name) for name in wanted}))


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is hidden or made by a system, such as thumbnails and recycle bins."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """The entries of `folder` but for `is_left_out`, sorted, and whether each is a folder; none without that folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as scanned:
        return sorted((folder / entry.name, _is_folder(entry)) for entry in scanned if not is_left_out(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: an error when it is read, like a broken link
        return False


def folders(parent: Path) -> list[Path]:
    """The folders in `parent` that are not left out, sorted by name; none without that folder."""
    return [path for path, is_folder in entries(parent) if is_folder]


def named_folders(parent: Path) -> dict[str, Path]:
    """The folders in `parent` by name. Raises InputError for two whose names differ in the form of Unicode only."""
    by_name: dict[str, Path] = {}
    for folder in folders(parent):
        name = composed(folder.name)
        if name in by_name:
            raise InputError(f"{parent}: two folders are called {name}, in two forms of Unicode; rename one")
        by_name[name] = folder
    return by_name


def category_folders(root: Path, holding: Sequence[str], *, data_set: str, expected: str) -> dict[str, Path]:
    """The folders of `root` that contain one of `holding`, by name; LayoutError without any."""
    named = named_folders(root).items()
    categories = {name: folder for name, folder in named if any((folder / part).is_dir() for part in holding)}
    if not categories:
        raise LayoutError(
            f"data.root: {root.absolute()} holds no category of {data_set}; give the folder that holds {expected}"
        )
    return categories


def splits_of(
    chosen: Mapping[str, Path],
    *,
    train: Callable[[Path, str], list[Record]],
    test: Callable[[Path, str], list[Record]],
    validation: Callable[[Path, str], list[Record]] = lambda folder, name: [],
) -> Splits:
    """The records that `test`, `train` and `validation` list in each category's folder; tests are listed first."""
    listed = [[record for name in chosen for record in part(chosen[name], name)] for part in (test, train, validation)]
    return Splits(tuple(chosen), tuple(listed[1]), tuple(listed[0]), tuple(listed[2]))


def any_folder(root: Path, fits: Callable[[Path], bool]) -> bool:
    """Whether any folder of `root` `fits`; False where it cannot be read, since this only serves a hint."""
    try:
        return any(fits(folder) for folder in folders(root))
    except OSError:
        return False


def is_image(path: Path) -> bool:
    """Whether the name has the suffix of an image, in upper or lower case, and is not hidden."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def image_files(folder: Path) -> dict[str, Path]:
    """The images of `folder` by stem, sorted by file name; empty without that folder.

    Raises InputError when two differ in suffix only: a mask could belong to either.
    """
    images: dict[str, Path] = {}
    for path, is_folder in entries(folder):
        if is_folder:
            continue
        # Not `is_file()`: a broken link should be an error when it is read, not an image fewer.
        if not is_image(path):
            skip(path)
            continue
        stem = composed(path.stem)
        if stem in images:
            raise InputError(
                f"{path}: same name as {images[stem].name} but for the suffix, so a mask or result "
                "could belong to either; rename or delete one"
            )
        images[stem] = path
    return images


def skip_images_in(folder: Path) -> None:
    """Count the images directly in `folder`, of which only the subfolders are listed."""
    for path, is_folder in entries(folder):
        if not is_folder and is_image(path):
            skip_beside(path)


def good_records(folder: Path, category: str) -> list[Record]:
    """A good record for each image of `folder`, none without that folder."""
    return [Record(image, (), category, GOOD, 0) for image in image_files(folder).values()]


def training_records(folder: Path, category: str, *, needed: bool) -> list[Record]:
    """A good record for each image of `folder`; where they are `needed`, errors without any.

    Raises LayoutError without the folder, InputError when it is empty.
    """
    if not needed and not folder.is_dir():
        return []
    if not folder.is_dir():
        raise LayoutError(f"{folder}: no such folder; {category} needs its good training images there")
    skip_images_in(folder.parent)
    records = good_records(folder, category)
    if needed and not records:
        raise InputError(f"{folder}: no image in it; expected files ending in {USUAL_SUFFIXES}")
    return records


def tested_records(test: Path, truth: Path, category: str, *, masked: bool) -> list[Record]:
    """Records of the folders of `test`, each defective image with its mask in the folder of that name in `truth`.

    None has a mask unless `masked`. In the order defect, file name, `good` among them; `truth` itself may lie in
    `test`. Raises InputError as `pair`.
    """
    skip_images_in(test)
    records = []
    for defect, (images_in, masks_in) in kinds_of(test, truth).items():
        if defect == GOOD:
            records += good_records(images_in, category)
        else:
            images = image_files(images_in)
            masks = pair(images, image_files(masks_in), images_in=images_in, masks_in=masks_in) if masked else {}
            marked = ((image, (masks[stem],) if masked else ()) for stem, image in images.items())
            records += [Record(image, mask, category, defect, 1) for image, mask in marked]
    return records


def kinds_of(test: Path, truth: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images in `test` and of masks in `truth` by kind of defect, sorted, `good` among them.

    One of the two need not be there. `truth` itself may lie in `test`.
    """
    tested, marked = named_folders(test), named_folders(truth)
    kinds = sorted({kind for part in (tested, marked) for kind, folder in part.items() if folder != truth})
    return {kind: (tested.get(kind, test / kind), marked.get(kind, truth / kind)) for kind in kinds}


def pair(
    images: Mapping[str, Path], masks: Mapping[str, Path], *, images_in: Path, masks_in: Path, ending: str = "_mask"
) -> dict[str, Path]:
    """The mask of each image, by the image's stem: `<stem><ending>` or `<stem>`, with any image suffix.

    Raises InputError for an image without mask or with two, and for a mask without image; the message names the file
    that was expected in `masks_in` or `images_in`.
    """
    unused = dict(masks)
    paired = {}
    for stem, image in images.items():
        # A mask serves once, so that `000_mask` is not both the mask of 000 and of an image 000_mask.
        fitting = [unused.pop(name) for name in dict.fromkeys((f"{stem}{ending}", stem)) if name in unused]
        if not fitting:
            also = f", with or without {ending}" if ending else ""
            raise InputError(
                f"{image}: the defective image has no mask; expected {masks_in / f'{stem}{ending}.png'} "
                f"(any image suffix{also})"
            )
        if len(fitting) > 1:
            raise InputError(f"{image}: two masks, {fitting[0]} and {fitting[1]}; keep one")
        paired[stem] = fitting[0]
    for mask in unused.values():
        where = images_in / f"{mask.stem.removesuffix(ending)}.png"
        raise InputError(f"{mask}: the mask has no image; expected {where} (any image suffix), or delete the mask")
    return paired
