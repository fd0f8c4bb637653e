"""What listings of data sets share: check the root, choose categories, find pictures, pair masks. Opens no picture.

A listing is a function `list_<layout>(root, *, categories)` -> `Splits`. Hidden files and folders are passed over,
among them the `._000.png` that macOS leaves in archives.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, did_you_mean

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


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


def choose(wanted: Sequence[str] | None, found: Sequence[str], root: Path) -> tuple[str, ...]:
    """The categories to use, sorted: those `wanted`, or all that were `found`; InputError for one that was not."""
    if wanted is None:
        return tuple(sorted(found))
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):  # a string is a sequence of strings, too
        raise InputError(f"data.categories: got '{wanted}', expected a list: 'data.categories=[{wanted}]'")
    if not wanted:
        raise InputError("data.categories: the list is empty; name a category, or give null for all of them")
    for name in wanted:
        if not isinstance(name, str):
            raise InputError(f'data.categories: {name!r} is no text; quote it, as in ["01"]')
        if name not in found:
            hint = did_you_mean(name, found)
            raise InputError(f"data.categories: no '{name}' in {root.absolute()}.{hint} Found: {', '.join(found)}")
    return tuple(sorted(set(wanted)))


def folders(parent: Path) -> list[Path]:
    """The folders in `parent` that are not hidden, sorted by name; none without that folder."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if not path.name.startswith(".") and path.is_dir())


def category_folders(root: Path, holding: Sequence[str], *, data_set: str, expected: str) -> tuple[str, ...]:
    """Sorted names of the folders of `root` that have one of `holding` in them; LayoutError without any."""
    found = tuple(folder.name for folder in folders(root) if any((folder / part).is_dir() for part in holding))
    if not found:
        raise LayoutError(
            f"data.root: {root.absolute()} holds no category of {data_set}; give the folder that holds {expected}"
        )
    return found


def splits_of(
    root: Path,
    chosen: Sequence[str],
    *,
    train: Callable[[Path], list[Record]],
    test: Callable[[Path], list[Record]],
    validation: Callable[[Path], list[Record]] = lambda _: [],
) -> Splits:
    """The records that `test`, `train` and `validation` list of each category's folder; `test` of all comes first."""
    listed = [[record for name in chosen for record in part(root / name)] for part in (test, train, validation)]
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
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        # Not `is_file()`: a link to nowhere is to be an error when read, not an image fewer.
        if not is_picture(path):
            continue
        if path.stem in found:
            raise InputError(
                f"{path}: same name as {found[path.stem].name} but for the suffix, so a mask or result "
                "could belong to either; rename or delete one"
            )
        found[path.stem] = path
    return found


def good_records(folder: Path, category: str) -> list[Record]:
    """A good record for each picture of `folder`, none without that folder."""
    return [Record(image, (), category, GOOD, 0) for image in pictures(folder).values()]


def training_records(folder: Path, category: str) -> list[Record]:
    """A good record for each picture of `folder`; LayoutError without it, InputError when it is empty."""
    if not folder.is_dir():
        raise LayoutError(f"{folder}: no such folder; {category} needs its good training images there")
    records = good_records(folder, category)
    if not records:
        raise InputError(f"{folder}: no image in it; expected files ending in {' '.join(sorted(SUFFIXES))}")
    return records


def tested_records(test: Path, truth: Path, category: str) -> list[Record]:
    """Records of the folders of `test`, each defective image with its mask in the folder of `truth` of that name.

    In the order defect, file name, `good` among them; `truth` itself may lie in `test`. Raises InputError as `pair`.
    """
    records = []
    for defect in sorted({folder.name for part in (test, truth) for folder in folders(part) if folder != truth}):
        if defect == GOOD:
            records += good_records(test / defect, category)
        else:
            images = pictures(test / defect)
            masks = pair(images, pictures(truth / defect), images_in=test / defect, masks_in=truth / defect)
            records += [Record(images[stem], (masks[stem],), category, defect, 1) for stem in images]
    return records


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
