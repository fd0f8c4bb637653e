"""What listings of data sets share: check the root, choose categories, find pictures, pair masks. Opens no picture.

A listing is a function `list_<layout>(root, *, categories, train_needed)` -> `Splits`; without `train_needed`, where
nobody trains, there may be no train image. What systems and tools leave in folders of
images (`is_left_out`) is none of the user's; other files that are no images are counted (`passed_over`). Names are
compared in one form of Unicode (`naming.composed`), and files opened by their own.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from uniad_lightning.data.images.formats import SUFFIXES, USUAL_SUFFIXES
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.passed_over import leave_beside, pass_over
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, did_you_mean

_LEFT_BY_SYSTEMS = frozenset(
    {
        "@eadir", "#recycle", "@recycle", "#snapshot", "$recycle.bin", "system volume information", "__macosx",
        "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini",
    }
)  # fmt: skip


class LayoutError(InputError):
    """The folder does not have the layout that was asked for; it may have another (`catalogue.recognise`)."""


def check_root(root: Path, expected: str) -> None:
    """Raises InputError unless `root` is a folder; `expected` says what it should hold."""
    if not root.exists():
        raise InputError(f"data.root: {root.absolute()} does not exist; give the folder that holds {expected}")
    if not root.is_dir():
        raise InputError(
            f"data.root: {root.absolute()} is a file; give the folder that holds {expected}, unpacked if need be"
        )


def choose(wanted: Sequence[str] | None, found: Iterable[str], root: Path) -> tuple[str, ...]:
    """The categories to use, sorted: those `wanted`, or all that were `found`; InputError for one that was not.

    `found` are composed names.
    """
    found = sorted(found)
    if wanted is None:
        return tuple(sorted(found))
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):  # a string is a sequence of strings, too
        raise InputError(f"data.categories: got '{wanted}', expected a list: 'data.categories=[{wanted}]'")
    if not wanted:
        raise InputError("data.categories: the list is empty; name a category, or give null for all of them")
    for name in wanted:
        if not isinstance(name, str):
            raise InputError(f'data.categories: {name!r} is no text; quote it, as in ["01"]')
        if composed(name) not in found:
            hint = did_you_mean(name, found)
            raise InputError(f"data.categories: no '{name}' in {root.absolute()}.{hint} Found: {', '.join(found)}")
    return tuple(sorted({composed(name) for name in wanted}))


def is_left_out(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was left by a system: thumbnails, waste bins."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def entries(folder: Path) -> list[tuple[Path, bool]]:
    """What is in `folder` and not `is_left_out`, sorted, and whether each is a folder; nothing without that folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted((folder / entry.name, _is_folder(entry)) for entry in found if not is_left_out(entry.name))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself: to be an error when it is read, as one that leads nowhere
        return False


def folders(parent: Path) -> list[Path]:
    """The folders in `parent` that are not left out, sorted by name; none without that folder."""
    return [path for path, is_folder in entries(parent) if is_folder]


def named_folders(parent: Path) -> dict[str, Path]:
    """The same by name. Raises InputError for two whose names look alike and differ in the form of Unicode."""
    found: dict[str, Path] = {}
    for folder in folders(parent):
        name = composed(folder.name)
        if name in found:
            raise InputError(f"{parent}: two folders are called {name}, in two forms of Unicode; rename one")
        found[name] = folder
    return found


def category_folders(root: Path, holding: Sequence[str], *, data_set: str, expected: str) -> dict[str, Path]:
    """The folders of `root` that have one of `holding` in them, by name; LayoutError without any."""
    named = named_folders(root).items()
    found = {name: folder for name, folder in named if any((folder / part).is_dir() for part in holding)}
    if not found:
        raise LayoutError(
            f"data.root: {root.absolute()} holds no category of {data_set}; give the folder that holds {expected}"
        )
    return found


def splits_of(
    chosen: Mapping[str, Path],
    *,
    train: Callable[[Path, str], list[Record]],
    test: Callable[[Path, str], list[Record]],
    validation: Callable[[Path, str], list[Record]] = lambda folder, name: [],
) -> Splits:
    """The records that `test`, `train` and `validation` list of each category's folder; `test` of all comes first."""
    listed = [[record for name in chosen for record in part(chosen[name], name)] for part in (test, train, validation)]
    return Splits(tuple(chosen), tuple(listed[1]), tuple(listed[0]), tuple(listed[2]))


def any_folder(root: Path, fits: Callable[[Path], bool]) -> bool:
    """Whether any folder of `root` `fits`; False where that cannot be seen, since it only serves a hint."""
    try:
        return any(fits(folder) for folder in folders(root))
    except OSError:
        return False


def is_picture(path: Path) -> bool:
    """Whether the name is that of a picture, by its suffix in any case; hidden files are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def pictures(folder: Path) -> dict[str, Path]:
    """The picture files of `folder` by stem, sorted by file name; empty without that folder.

    Raises InputError when two differ in suffix only: a mask could belong to either.
    """
    found: dict[str, Path] = {}
    for path, is_folder in entries(folder):
        if is_folder:
            continue
        # Not `is_file()`: a link to nowhere is to be an error when read, not an image fewer.
        if not is_picture(path):
            pass_over(path)
            continue
        stem = composed(path.stem)
        if stem in found:
            raise InputError(
                f"{path}: same name as {found[stem].name} but for the suffix, so a mask or result "
                "could belong to either; rename or delete one"
            )
        found[stem] = path
    return found


def leave_pictures_in(folder: Path) -> None:
    """Count the pictures that lie in `folder` itself, where those of its folders are listed."""
    for path, is_folder in entries(folder):
        if not is_folder and is_picture(path):
            leave_beside(path)


def good_records(folder: Path, category: str) -> list[Record]:
    """A good record for each picture of `folder`, none without that folder."""
    return [Record(image, (), category, GOOD, 0) for image in pictures(folder).values()]


def training_records(folder: Path, category: str, *, needed: bool) -> list[Record]:
    """A good record for each picture of `folder`; where they are `needed`, errors without any.

    Raises LayoutError without the folder, InputError when it is empty.
    """
    if not needed and not folder.is_dir():
        return []
    if not folder.is_dir():
        raise LayoutError(f"{folder}: no such folder; {category} needs its good training images there")
    leave_pictures_in(folder.parent)
    records = good_records(folder, category)
    if needed and not records:
        raise InputError(f"{folder}: no image in it; expected files ending in {USUAL_SUFFIXES}")
    return records


def tested_records(test: Path, truth: Path, category: str) -> list[Record]:
    """Records of the folders of `test`, each defective image with its mask in the folder of `truth` of that name.

    In the order defect, file name, `good` among them; `truth` itself may lie in `test`. Raises InputError as `pair`.
    """
    leave_pictures_in(test)
    records = []
    for defect, (images_in, masks_in) in kinds_of(test, truth).items():
        if defect == GOOD:
            records += good_records(images_in, category)
        else:
            images = pictures(images_in)
            masks = pair(images, pictures(masks_in), images_in=images_in, masks_in=masks_in)
            records += [Record(images[stem], (masks[stem],), category, defect, 1) for stem in images]
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
    """The mask of each image, by the image's stem: `<stem><ending>` or `<stem>`, with any picture suffix.

    Raises InputError for an image without mask or with two, and for a mask without image; the message names the file
    that was expected in `masks_in` or `images_in`.
    """
    unused = dict(masks)
    paired = {}
    for stem, image in images.items():
        # A mask that is taken is gone, so that it cannot serve 000 as `000_mask` and 000_mask as itself.
        fitting = [unused.pop(name) for name in dict.fromkeys((f"{stem}{ending}", stem)) if name in unused]
        if not fitting:
            also = f", with or without {ending}" if ending else ""
            raise InputError(
                f"{image}: the defective image has no mask; expected {masks_in / f'{stem}{ending}.png'} "
                f"(any picture suffix{also})"
            )
        if len(fitting) > 1:
            raise InputError(f"{image}: two masks, {fitting[0]} and {fitting[1]}; keep one")
        paired[stem] = fitting[0]
    for mask in unused.values():
        where = images_in / f"{mask.stem.removesuffix(ending)}.png"
        raise InputError(f"{mask}: the mask has no image; expected {where} (any picture suffix), or delete the mask")
    return paired
