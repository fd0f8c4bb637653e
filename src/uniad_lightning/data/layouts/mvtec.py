"""The layout of MVTec-AD, listed and checked without opening an image.

    root/<category>/train/good/*.png
    root/<category>/test/<defect>/*.png              <defect> is `good` for normal images
    root/<category>/ground_truth/<defect>/<stem>_mask.png

Any image suffix is accepted, in upper or lower case; a mask may also be called `<stem>.png`. `ground_truth/good`, which
some data sets of this layout fill with black masks, is ignored. Where no category has `ground_truth`, no image has a
mask. `root` may itself be the one category. That a mask has its image's size is checked when it is read
(`decoding.read_mask`).
"""

import os
from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.listing import (
    LayoutError,
    category_folders,
    check_root,
    choose,
    folders,
    is_image,
    splits_of,
    tested_records,
    training_records,
)
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.layouts.skipped import note_without_masks
from uniad_lightning.data.layouts.wrong_level import why_no_category
from uniad_lightning.data.records import GOOD, Splits

_TRUTH = "ground_truth"
_EXPECTED = "the categories (bottle/, ...) with train/good/ and test/<defect>/"


def list_mvtec(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order category, defect, file name.

    A category without `test` is one to train on only.

    Raises InputError when `root` is no folder of categories, a named category is not there, a category has no
    training image, a defective image has no mask, a mask has no image, or two files of a folder differ in suffix only.
    """
    by_name = _find_categories(root)
    chosen = {name: by_name[name] for name in choose(categories, by_name, root)}
    masked = any((folder / _TRUTH).is_dir() for folder in chosen.values())
    splits = splits_of(
        chosen,
        train=lambda folder, name: training_records(folder / "train" / GOOD, name, needed=train_needed),
        test=lambda folder, name: tested_records(folder / "test", folder / _TRUTH, name, masked=masked),
    )
    if not masked and any(record.label for record in splits.test):
        for folder in chosen.values():
            note_without_masks(folder / _TRUTH)
    return splits


def _find_categories(root: Path) -> dict[str, Path]:
    """The folders of `root` that hold `train` or `test`, by name, or `root` itself; at least one."""
    check_root(root, _EXPECTED)
    try:
        return category_folders(root, ("train", "test"), data_set="this layout", expected=_EXPECTED)
    except LayoutError as error:
        if not _has_train_good(root):
            raise LayoutError(f"{error}{why_no_category(root, _has_train_good)}") from None
    return {composed(Path(os.path.abspath(root)).name): root}  # not `resolve`: a linked folder has the link's name


def _has_train_good(folder: Path) -> bool:
    return (folder / "train" / GOOD).is_dir()


def recognise(root: Path) -> bool:
    """Whether a folder of `root` has this layout."""
    return bool(categories_of_layout(root))


def categories_of_layout(root: Path) -> tuple[str, ...]:
    """Sorted names of the folders of `root` that have this layout and no other; none without that folder."""
    try:
        return tuple(folder.name for folder in folders(root) if _has_layout(folder))
    except OSError:
        return ()


def _has_layout(category: Path) -> bool:
    """Whether the training images lie in train/good, and no folder belongs to a later data set of MVTec."""
    images = category / "train" / GOOD
    if not images.is_dir() or not any(is_image(path) for path in images.iterdir()):  # MVTec 3D-AD: train/good/rgb
        return False
    if any((category / split).is_dir() for split in ("validation", "test_public")):  # MVTec LOCO AD, MVTec AD 2
        return False
    return not any(folders(defect) for defect in folders(category / _TRUTH))  # LOCO: a folder for each image


MVTEC = Published(
    title="MVTec AD",
    layout="""\
<category>/train/good/*.png
<category>/test/<defect>/*.png (good among the defects)
<category>/ground_truth/<defect>/<stem>_mask.png""",
    licence="CC BY-NC-SA 4.0: no commercial use; what is made from it carries the same licence",
    source="https://www.mvtec.com/company/research/datasets/mvtec-ad",
    reference="Bergmann, Fauser, Sattlegger, Steger: MVTec AD - A Comprehensive Real-World Dataset for Unsupervised "
    "Anomaly Detection, CVPR 2019",
    images={
        "bottle": Images(209, 0, 20, 63),
        "cable": Images(224, 0, 58, 92),
        "capsule": Images(219, 0, 23, 109),
        "carpet": Images(280, 0, 28, 89),
        "grid": Images(264, 0, 21, 57),
        "hazelnut": Images(391, 0, 40, 70),
        "leather": Images(245, 0, 32, 92),
        "metal_nut": Images(220, 0, 22, 93),
        "pill": Images(267, 0, 26, 141),
        "screw": Images(320, 0, 41, 119),
        "tile": Images(230, 0, 33, 84),
        "toothbrush": Images(60, 0, 12, 30),
        "transistor": Images(213, 0, 60, 40),
        "wood": Images(247, 0, 19, 60),
        "zipper": Images(240, 0, 32, 119),
    },
    listing=list_mvtec,
    recognise=recognise,
)
