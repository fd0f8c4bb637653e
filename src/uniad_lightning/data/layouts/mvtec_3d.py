"""The layout of MVTec 3D-AD, its colour images only, listed and checked without opening one.

    root/<category>/{train,validation}/good/rgb/*.png
    root/<category>/test/<defect>/rgb/*.png            <defect> is `good` for normal images
    root/<category>/test/<defect>/gt/<stem>.png        black for `good`, so ignored there

The 3-D scans (`xyz/*.tiff`) are not read. `validation` becomes `Splits.validation`.
"""

from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.data.layouts.listing import (
    LayoutError,
    any_folder,
    category_folders,
    check_root,
    choose,
    good_records,
    image_files,
    named_folders,
    pair,
    splits_of,
    training_records,
)
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import GOOD, Record, Splits

_RGB = "rgb"
_TRUTH = "gt"
_EXPECTED = f"the categories (bagel/, ...) with train/good/{_RGB}/ and test/<defect>/{_RGB}/"


def list_mvtec_3d(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order category, defect, file name.

    A category without `test` is one to train on only; one without `validation` has no such records.

    Raises LayoutError when `root` holds no category, a category has no training folder, or a kind of defect has no
    `rgb`; InputError when `root` is no folder, a named category is not there, a category has no training image, a
    defective image has no mask, a mask has no image, or two files of a folder differ in suffix only.
    """
    check_root(root, _EXPECTED)
    by_name = category_folders(root, ("train", "test"), data_set="MVTec 3D-AD", expected=_EXPECTED)
    return splits_of(
        {name: by_name[name] for name in choose(categories, by_name, root)},
        train=lambda folder, name: training_records(folder / "train" / GOOD / _RGB, name, needed=train_needed),
        test=_list_test,
        validation=lambda folder, name: good_records(folder / "validation" / GOOD / _RGB, name),
    )


def recognise(root: Path) -> bool:
    """Whether a folder of `root` has its good training images under `rgb`, as MVTec 3D-AD has."""
    return any_folder(root, lambda folder: (folder / "train" / GOOD / _RGB).is_dir())


def _list_test(folder: Path, category: str) -> list[Record]:
    """Records of `folder`/test, kind of defect by kind; none without that folder."""
    kinds = named_folders(folder / "test")
    return [record for kind in sorted(kinds) for record in _list_defect(kinds[kind], category, kind)]


def _list_defect(folder: Path, category: str, kind: str) -> list[Record]:
    """Records of one kind of defect, each defective one with its mask, or of the good test images."""
    colour, truth = folder / _RGB, folder / _TRUTH
    if not colour.is_dir():
        raise LayoutError(
            f"{colour}: no such folder; expected the colour images of MVTec 3D-AD there; unpack {category} again, "
            "or choose the right layout"
        )
    if kind == GOOD:
        return good_records(colour, category)
    images = image_files(colour)
    masks = pair(images, image_files(truth), images_in=colour, masks_in=truth, ending="")
    return [Record(images[stem], (masks[stem],), category, kind, 1) for stem in images]


MVTEC_3D = Published(
    title="MVTec 3D-AD",
    layout="""\
<category>/{train,validation}/good/{rgb,xyz}/<stem>.{png,tiff}
<category>/test/<defect>/{rgb,xyz,gt}/<stem>.{png,tiff,png} (good among the defects; xyz is not used)""",
    licence="CC BY-NC-SA 4.0: no commercial use; what is made from it carries the same licence",
    source="https://www.mvtec.com/company/research/datasets/mvtec-3d-ad",
    reference="Bergmann, Jin, Sattlegger, Steger: The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and "
    "Localization, VISAPP 2022",
    images={
        "bagel": Images(244, 22, 22, 88),
        "cable_gland": Images(223, 23, 21, 87),
        "carrot": Images(286, 29, 27, 132),
        "cookie": Images(210, 22, 28, 103),
        "dowel": Images(288, 34, 26, 104),
        "foam": Images(236, 27, 20, 80),
        "peach": Images(361, 42, 26, 106),
        "potato": Images(300, 33, 22, 92),
        "rope": Images(298, 33, 32, 69),
        "tire": Images(210, 29, 25, 87),
    },
    listing=list_mvtec_3d,
    recognise=recognise,
)
