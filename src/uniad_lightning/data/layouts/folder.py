"""The user's own images: folders that speak for themselves, or products that are given by patterns. Opens no picture.

    root/<product>/good/*.png                        normal images; `root` may itself be the one product
    root/<product>/<defect>/*.png                    every other folder is a kind of defect
    root/<product>/masks/<defect>/<stem>_mask.png    optional; so will other names of masks (`is_mask_folder`)

or, given as `products`, for each name

    good, defective, test_good    folder, file or glob relative to `root`, or a list of them; only `good` is needed
    masks                         folder with `<stem>_mask` or `<stem>` of every defective image (`masks_by_stem`)

Folders are searched to the bottom, linked ones too; pictures beside the folders of a product are passed over, which is
said, and so are masks of other images. With `products`, a defect is called after the folder that holds the image, or
`defective` where that folder is `root`, has the product's name or holds good images as well. Without masks no defect of
a product is marked, and its metrics of pixels are undefined.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.data.layouts.category_names import check_names, composed
from uniad_lightning.data.layouts.listing import (
    LayoutError,
    check_root,
    choose,
    folders,
    leave_pictures_in,
    named_folders,
)
from uniad_lightning.data.layouts.mask_names import is_mask_folder, masks_among
from uniad_lightning.data.layouts.passed_over import take_for_masks
from uniad_lightning.data.layouts.patterns import below, inside, masks_by_stem, matches, on_disk
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, did_you_mean

DEFECTIVE = "defective"  # the kind of defect where no folder tells it
MASK_FOLDERS = ("mask", "masks", "ground_truth")  # what cannot be a kind of defect, nor anything but masks
SPLITS = ("train", "training", "test", "testing", "test_public", "val", "valid", "validation")
PRODUCTS = "data.source.products"
PARTS = ("good", "defective", "test_good", "masks")  # what a product is given by


class _Product(NamedTuple):
    name: str
    good: list[Path]
    test_good: list[Path]
    defective: list[tuple[str, Path]]  # kind of defect and image
    masks: Path | None


def list_folder(
    root: Path,
    *,
    products: Mapping[str, Mapping] | None = None,
    test_share: float = 0.2,
    categories: Sequence[str] | None = None,
    train_needed: bool = True,
) -> Splits:
    """Records of the products below `root`, all of them or those named, in the order category, defect, file.

    `products` gives the images of each product by patterns; None means the folders above. `test_share`, from 0 and
    below 1, of the good images of a product without `test_good` are tested and not trained on: evenly spaced in the
    order of their names, their number rounded, at least one where there are two images. Unless `train_needed` it may be
    1: all of them.

    Raises LayoutError without any product; InputError for a name that cannot be used, an unknown or missing part of a
    product, a pattern that matches no picture or leaves `root`, an image that is given twice, a defective image in a
    folder called `good`, masks among the images, by the names of folders or files, and for masks that are missing, that
    fit two images or none.
    """
    check_root(root, "your images (good/ and a folder for each kind of defect, or such folders for each product)")
    number = isinstance(test_share, int | float) and not isinstance(test_share, bool)
    if not number or not (0 <= test_share < 1 or (test_share == 1 and not train_needed)):
        raise InputError(f"data.source.test_share={test_share}: expected a number from 0 and below 1, such as 0.2")
    readers = _by_folders(root) if products is None else _by_patterns(root, products)
    chosen = choose(categories, sorted(readers), root)
    if products is None and categories is None:
        _refuse_left_out(root)
    listed = [readers[name]() for name in chosen]
    _refuse_repeated(listed)
    train: list[Record] = []
    test: list[Record] = []
    for product in listed:
        _refuse_masks(product)
        tested = product.test_good or _share(product.good, test_share)
        train += [Record(image, (), product.name, GOOD, 0) for image in sorted({*product.good} - {*tested})]
        records = [Record(image, (), product.name, GOOD, 0) for image in tested] + _defective_records(root, product)
        test += sorted(records, key=lambda record: (record.defect, record.image))
    return Splits(chosen, tuple(train), tuple(test))


def _by_folders(root: Path) -> dict[str, Callable[[], _Product]]:
    """A reader for each folder with `good` in it, by its name: those in `root`, or `root` itself."""
    found = {name: folder for name, folder in named_folders(root).items() if (folder / GOOD).is_dir()}
    if (root / GOOD).is_dir():
        for folder in found.values():
            raise InputError(
                f"data.root: both {root / GOOD} and {folder / GOOD} are there, so it is one product and holds some; "
                "move one away"
            )
        found = {composed(Path(os.path.abspath(root)).name): root}  # not `resolve`: a linked folder has the link's name
    split = [name for name, folder in found.items() if folder != root and name.casefold() in SPLITS]
    if split:
        raise LayoutError(
            f"data.root: {root.absolute()} holds {' and '.join(split)}, the splits of one product, and no products"
            f"{_as_products(root)}"
        )
    if not found:
        raise LayoutError(
            f"data.root: {root.absolute()} holds no product; expected good/ in it or in its folders, with a folder for "
            f"each kind of defect beside it; or give {PRODUCTS}"
        )
    check_names({name: str(folder.absolute()) for name, folder in found.items()})
    return {name: partial(_read_folder, name, folder) for name, folder in found.items()}


def _as_products(root: Path) -> str:
    """How the splits of one product are given as it, in the layout of MVTec-AD without its masks or with them."""
    kinds = [kind for kind in named_folders(root / "test") if kind != GOOD]
    if not kinds or not (root / "train" / GOOD).is_dir():
        return ""
    parts = [f"{GOOD}:train/{GOOD}", *([f"test_good:test/{GOOD}"] if (root / "test" / GOOD).is_dir() else [])]
    parts.append(f"{DEFECTIVE}:[{','.join(f'test/{kind}' for kind in kinds)}]")
    name = composed(Path(os.path.abspath(root)).name)
    return f"; without masks give '{PRODUCTS}={{{name}:{{{','.join(parts)}}}}}'"


def _refuse_left_out(root: Path) -> None:
    """Raises InputError for a folder beside the products that has pictures, but no `good`."""
    for folder in [] if (root / GOOD).is_dir() else folders(root):
        if not (folder / GOOD).is_dir() and below(folder):
            raise InputError(
                f"{folder}: has pictures, but no folder {GOOD}, so it is no product; rename the folder of its good "
                "images, move it away, or name the products by data.categories"
            )


def _read_folder(name: str, folder: Path) -> _Product:
    good = below(folder / GOOD)
    leave_pictures_in(folder)
    if not good:
        raise InputError(f"{folder / GOOD}: no image in it; {name} needs its good images there")
    kinds = {kind: path for kind, path in named_folders(folder).items() if kind != GOOD}
    masks = [kinds.pop(kind) for kind in sorted(kinds, reverse=True) if is_mask_folder(kind)]
    masks = [path for path in masks if below(path) or not any(path.iterdir())]  # not one of labels in .txt
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
        if path.name.lower() not in MASK_FOLDERS:
            take_for_masks(path)
    return _Product(name, good, [], defective, masks[0] if masks else None)


def _by_patterns(root: Path, products: Mapping[str, Mapping]) -> dict[str, Callable[[], _Product]]:
    """A reader for each of the `products`, whose names and parts are checked here."""
    example = f"'{PRODUCTS}={{bottle:{{good:bottle/ok,defective:bottle/scrap}}}}'"
    if not isinstance(products, Mapping) or not products:
        raise InputError(f"{PRODUCTS}: got {products}, expected names and their images, such as {example}")
    for name, parts in products.items():
        if not isinstance(name, str):
            raise InputError(f"{PRODUCTS}: the name {name!r} is no text; quote it")
        if not isinstance(parts, Mapping):
            raise InputError(f"{PRODUCTS}.{name}: got {parts}, expected {', '.join(PARTS)}, such as {example}")
        for part in parts:
            if part not in PARTS:
                raise InputError(
                    f"{PRODUCTS}.{name}: no key '{part}'.{did_you_mean(str(part), PARTS)} Keys: {', '.join(PARTS)}"
                )
        if parts.get(GOOD) is None:
            raise InputError(f"{PRODUCTS}.{name}: no '{GOOD}'; give the folder or glob of its good images")
    named = {composed(name.lstrip(" ")): parts for name, parts in products.items()}
    check_names({name: PRODUCTS for name in named})
    return {name: partial(_read_patterns, root, name, parts) for name, parts in named.items()}


def _read_patterns(root: Path, name: str, parts: Mapping) -> _Product:
    key = f"{PRODUCTS}.{name}"
    masks = None
    if parts.get("masks") is not None:
        masks = on_disk(root / inside(root, parts["masks"], f"{key}.masks"))
        if not masks.is_dir():
            raise InputError(f"{key}.masks: {masks} is no folder; give the folder that holds the masks")
    good, test_good, defective = (
        matches(root, parts.get(part), key=f"{key}.{part}", without=masks) for part in ("good", "test_good", DEFECTIVE)
    )
    vague = {root, *(image.parent for image in good + test_good)}

    def kind(image: Path) -> str:
        folder = composed(image.parent.name)
        return DEFECTIVE if image.parent in vague or folder == name else folder

    return _Product(name, good, test_good, [(kind(image), image) for image in defective], masks)


def _refuse_repeated(products: Sequence[_Product]) -> None:
    """Raises InputError for an image that is in two products, or in two parts of one."""
    taken: dict[Path, str] = {}
    for product in products:
        defective = [image for _, image in product.defective]
        for part, images in (("good", product.good), ("test_good", product.test_good), (DEFECTIVE, defective)):
            here = f"{PRODUCTS}.{product.name}.{part}"
            for image in images:
                if taken.setdefault(image, here) != here:
                    raise InputError(f"{image}: is in {taken[image]} and in {here}; narrow one, so that they are apart")


def _refuse_masks(product: _Product) -> None:
    """Raises InputError for masks among the images of a product, by the name of a folder or of the file."""
    images = [*product.good, *product.test_good, *(image for _, image in product.defective)]
    common = os.path.commonpath([image.parent for image in images])  # above, a name tells nothing: `mask` is a product
    for image in images:
        for part in image.parent.relative_to(common).parts:
            if is_mask_folder(part):
                given = "good" if image in product.good + product.test_good else "defective"
                raise InputError(
                    f"{image}: given as a {given} image, but lies in a folder called {part}; move masks "
                    f"to a folder masks beside {GOOD} or give it as masks, or rename that folder"
                )
    masks = masks_among(images)
    if masks:
        raise InputError(
            f"{masks[0]}: is named as the mask of an image, but lies among the images of {product.name} (as "
            f"{len(masks)} do); move the masks to a folder masks beside {GOOD}, or narrow {PRODUCTS}"
        )


def _share(images: list[Path], share: float) -> list[Path]:
    """`share` of the `images`, each from the middle of an equally long stretch of them; all or never the last one."""
    if share == 1:
        return images
    total = len(images)
    count = min(total - 1, max(1, round(share * total))) if share else 0
    return [images[(2 * i + 1) * total // (2 * count)] for i in range(count)]


def _defective_records(root: Path, product: _Product) -> list[Record]:
    """The defective images, each with its mask where the product has masks."""
    for _, image in product.defective:
        parents = image.parent.relative_to(root).parts
        if GOOD in parents:
            raise InputError(
                f"{image}: given as a defective image, but lies in a folder called {GOOD}; give the folders of defects "
                "one by one, or rename that folder"
            )
    paired = {} if product.masks is None else masks_by_stem(product.defective, masks=product.masks, root=root)
    return [
        Record(image, (paired[image],) if paired else (), product.name, kind, 1) for kind, image in product.defective
    ]
