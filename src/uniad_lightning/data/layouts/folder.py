"""A user's own images, in folders by category and defect, or given for each category by patterns. Opens no image.

    root/<category>/good/*.png                        normal images; `root` may itself be the one category
    root/<category>/<defect>/*.png                    every other folder is a kind of defect
    root/<category>/masks/<defect>/<stem>_mask.png    optional; other names of masks are known (`is_mask_folder`)

or, given as `products`, for each name

    good, defective, test_good    folder, file or glob relative to `root`, or a list of them; only `good` is needed
    masks                         folder with `<stem>_mask` or `<stem>` of every defective image (`masks_by_stem`)

Folders are searched recursively, linked ones too. Images beside the folders of a category are skipped with a warning;
masks of other images are ignored. With `products`, a defect is named after the folder of the image, or `defective`
where that folder is `root`, has the category's name or holds good images as well. Without masks the pixel metrics of a
category are undefined.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from uniad_lightning.data.layouts.folder_categories import (
    DEFECTIVE,
    KEY,
    CategoryImages,
    read_folders,
    read_patterns,
    refuse_left_out,
)
from uniad_lightning.data.layouts.listing import check_root, choose
from uniad_lightning.data.layouts.mask_names import is_mask_folder, masks_among
from uniad_lightning.data.layouts.patterns import masks_by_stem
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError


def list_folder(
    root: Path,
    *,
    products: Mapping[str, Mapping] | None = None,
    test_share: float = 0.2,
    categories: Sequence[str] | None = None,
    train_needed: bool = True,
) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order category, defect, file.

    `products` gives the images of each category by patterns; None means the folders above. `test_share` in [0, 1) of
    the good images of a category without `test_good` are tested and not trained on: evenly spaced by name, at least one
    of two images. Without `train_needed` it may be 1.

    Raises LayoutError without any category; InputError for an invalid name, key, pattern or `test_share`, an image
    given twice or both as good and defective, masks among the images, and missing or ambiguous masks.
    """
    check_root(root, "your images (good/ and a folder for each kind of defect, or such folders for each category)")
    _check_share(test_share, train_needed)
    readers = read_folders(root) if products is None else read_patterns(root, products)
    chosen = choose(categories, sorted(readers), root)
    if products is None and categories is None:
        refuse_left_out(root)
    listed = [readers[name]() for name in chosen]
    _refuse_repeated(listed)
    train: list[Record] = []
    test: list[Record] = []
    for files in listed:
        _refuse_masks(files)
        tested = files.test_good or _share(files.good, test_share)
        train += [Record(image, (), files.name, GOOD, 0) for image in sorted({*files.good} - {*tested})]
        records = [Record(image, (), files.name, GOOD, 0) for image in tested] + _defective_records(root, files)
        test += sorted(records, key=lambda record: (record.defect, record.image))
    return Splits(chosen, tuple(train), tuple(test))


def _check_share(test_share: float, train_needed: bool) -> None:
    number = isinstance(test_share, int | float) and not isinstance(test_share, bool)
    if not number or not (0 <= test_share < 1 or (test_share == 1 and not train_needed)):
        raise InputError(f"data.source.test_share={test_share}: expected a number from 0 and below 1, such as 0.2")


def _refuse_repeated(categories: Sequence[CategoryImages]) -> None:
    """Raises InputError for an image that is in two categories, or in two parts of one."""
    first: dict[Path, str] = {}
    for files in categories:
        defective = [image for _, image in files.defective]
        for part, images in (("good", files.good), ("test_good", files.test_good), (DEFECTIVE, defective)):
            key = f"{KEY}.{files.name}.{part}"
            for image in images:
                if first.setdefault(image, key) != key:
                    raise InputError(f"{image}: is in {first[image]} and in {key}; narrow one, so that they are apart")


def _refuse_masks(files: CategoryImages) -> None:
    """Raises InputError for masks among the images of a category, by the name of a folder or of the file."""
    images = [*files.good, *files.test_good, *(image for _, image in files.defective)]
    common = os.path.commonpath(
        [image.parent for image in images]
    )  # names above it do not matter: `mask` may be a category
    for image in images:
        for part in image.parent.relative_to(common).parts:
            if is_mask_folder(part):
                given = "good" if image in files.good + files.test_good else "defective"
                raise InputError(
                    f"{image}: given as a {given} image, but lies in a folder called {part}; move masks "
                    f"to a folder masks beside {GOOD} or give it as masks, or rename that folder"
                )
    masks = masks_among(images)
    if masks:
        raise InputError(
            f"{masks[0]}: is named as the mask of an image, but lies among the images of {files.name} (as "
            f"{len(masks)} do); move the masks to a folder masks beside {GOOD}, or narrow {KEY}"
        )


def _share(images: list[Path], share: float) -> list[Path]:
    """`share` of the `images`, rounded, from the middles of equally long sections; all only for a share of 1."""
    if share == 1:
        return images
    total = len(images)
    count = min(total - 1, max(1, round(share * total))) if share else 0
    return [images[(2 * i + 1) * total // (2 * count)] for i in range(count)]


def _defective_records(root: Path, files: CategoryImages) -> list[Record]:
    """The defective images, each with its mask where the category has masks."""
    for _, image in files.defective:
        parents = image.parent.relative_to(root).parts
        if GOOD in parents:
            raise InputError(
                f"{image}: given as a defective image, but lies in a folder called {GOOD}; give the folders of defects "
                "one by one, or rename that folder"
            )
    paired = {} if files.masks is None else masks_by_stem(files.defective, masks=files.masks, root=root)
    return [Record(image, (paired[image],) if paired else (), files.name, kind, 1) for kind, image in files.defective]
