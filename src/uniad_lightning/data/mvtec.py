"""The layout of MVTec-AD, listed and checked without opening a picture.

    root/<category>/train/good/*.png
    root/<category>/test/<defect>/*.png              <defect> is `good` for normal images
    root/<category>/ground_truth/<defect>/<stem>_mask.png

Every suffix in `SUFFIXES` will do, in any case; a mask may also be called `<stem>.png`. Hidden files and folders are
passed over, among them the `._000.png` that macOS leaves in archives. So is `ground_truth/good`, which some data sets
of this layout fill with black masks. That a mask has its image's size is checked when it is read (`image.read_mask`).
"""

from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, did_you_mean

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_SPLITS = ("train", "test")


def list_mvtec(root: Path, *, categories: Sequence[str] | None = None) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order category, defect, file name.

    A category without `test` is one to train on only.

    Raises InputError when `root` is no folder of categories, a named category is not there, a category has no
    training image, a defective image has no mask, a mask has no image, or two files of a folder differ in suffix only.
    """
    chosen = _choose(categories, _find_categories(root), root)
    train: list[Record] = []
    test: list[Record] = []
    for category in chosen:
        folder = root / category
        train += _list_train(folder)
        test += _list_test(folder)
    return Splits(chosen, tuple(train), tuple(test))


def _find_categories(root: Path) -> tuple[str, ...]:
    """Sorted names of the folders of `root` that hold `train` or `test`; at least one."""
    if not root.exists():
        raise InputError(
            f"data.root: {root.absolute()} does not exist; give the folder that holds the categories (bottle/, ...)"
        )
    if not root.is_dir():
        raise InputError(
            f"data.root: {root.absolute()} is a file; give the folder that holds the categories, unpacked if need be"
        )
    found = tuple(folder.name for folder in _folders(root) if any((folder / part).is_dir() for part in _SPLITS))
    if found:
        return found
    if (root / "train" / GOOD).is_dir():
        here = root.resolve()
        raise InputError(
            f"data.root: {here} is itself a category (it holds train/good); "
            f"give its parent and name it: data.root={here.parent} 'data.categories=[{here.name}]'"
        )
    raise InputError(
        f"data.root: {root.absolute()} holds no category; expected folders such as bottle/ "
        "with train/good/ and test/<defect>/ in them"
    )


def _choose(wanted: Sequence[str] | None, found: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """The categories to use, sorted: those `wanted`, or all that were `found`."""
    if wanted is None:
        return found
    if isinstance(wanted, str):  # a string is a sequence of strings, too
        raise InputError(f"data.categories: got the text '{wanted}', expected a list: 'data.categories=[{wanted}]'")
    if not wanted:
        raise InputError("data.categories: the list is empty; name a category, or give null for all of them")
    for name in wanted:
        if name not in found:
            hint = did_you_mean(name, found)
            raise InputError(f"data.categories: no '{name}' in {root.absolute()}.{hint} Found: {', '.join(found)}")
    return tuple(sorted(set(wanted)))


def _list_train(category: Path) -> list[Record]:
    """Records of `category`/train/good, at least one."""
    folder = category / "train" / GOOD
    if not folder.is_dir():
        raise InputError(f"{category}: the category has no train/good; put its good training images there")
    images = _pictures(folder)
    if not images:
        raise InputError(f"{folder}: no image in it; expected files ending in {' '.join(sorted(SUFFIXES))}")
    return [Record(image, None, category.name, GOOD, 0) for image in images.values()]


def _list_test(category: Path) -> list[Record]:
    """Records of `category`/test, each defective one with its mask; none without that folder."""
    test = category / "test"
    truth = category / "ground_truth"
    records = []
    names = {folder.name for part in (test, truth) if part.is_dir() for folder in _folders(part)}
    for defect in sorted(names):
        images = _pictures(test / defect)
        if defect == GOOD:
            records += [Record(image, None, category.name, GOOD, 0) for image in images.values()]
        else:
            masks = _pair(images, _pictures(truth / defect), truth / defect)
            records += [Record(images[stem], masks[stem], category.name, defect, 1) for stem in images]
    return records


def _pair(images: dict[str, Path], masks: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Mask of each image, by the image's stem; `folder` is where the masks are."""
    unused = dict(masks)
    paired = {}
    for stem, image in images.items():
        # A mask that is taken is gone, so that it cannot serve 000 as `000_mask` and 000_mask as itself.
        fitting = [unused.pop(name) for name in (f"{stem}_mask", stem) if name in unused]
        if not fitting:
            raise InputError(
                f"{image}: the defective image has no mask; expected {folder / f'{stem}_mask.png'} "
                "(any picture suffix, with or without _mask)"
            )
        if len(fitting) > 1:
            raise InputError(f"{image}: two masks, {fitting[0]} and {fitting[1]}; keep one")
        paired[stem] = fitting[0]
    for mask in unused.values():
        stem = mask.stem.removesuffix("_mask")
        where = folder.parent.parent / "test" / folder.name / f"{stem}.png"
        raise InputError(f"{mask}: the mask has no image; expected {where} (any picture suffix), or delete the mask")
    return paired


def _folders(parent: Path) -> list[Path]:
    """The folders in `parent` that are not hidden, sorted by name."""
    return sorted(path for path in parent.iterdir() if not path.name.startswith(".") and path.is_dir())


def _pictures(folder: Path) -> dict[str, Path]:
    """The picture files of `folder` by stem, sorted by file name; empty without that folder."""
    pictures: dict[str, Path] = {}
    if not folder.is_dir():
        return pictures
    for path in sorted(folder.iterdir()):
        # Not `is_file()`: a link to nowhere is to be an error when read, not an image fewer.
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in pictures:
            raise InputError(
                f"{path}: same name as {pictures[path.stem].name} but for the suffix, so a mask or result "
                "could belong to either; rename or delete one"
            )
        pictures[path.stem] = path
    return pictures
