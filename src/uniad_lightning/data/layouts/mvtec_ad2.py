"""The layout of MVTec AD 2, listed and checked without opening an image.

    root/<category>/{train,validation}/good/*.png
    root/<category>/test_public/{good,bad}/*.png
    root/<category>/test_public/ground_truth/bad/<stem>_mask.png

`validation` becomes `Splits.validation`. `test_private` and `test_private_mixed` are not listed: their labels are not
public, only the benchmark's server can score them (https://benchmark.mvtec.com). The lighting, which is part of a
file's name (`000_regular.png`, `000_overexposed.png`), is ignored.
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
    splits_of,
    tested_records,
    training_records,
)
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import GOOD, Record, Splits

_TEST = "test_public"
_TRUTH = "ground_truth"
_EXPECTED = f"the categories (can/, ...) with train/good/ and {_TEST}/"


def list_mvtec_ad2(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order category, defect, file name.

    Tests on `test_public` only. A category without `validation` has no such records.

    Raises LayoutError when `root` holds no category, or a category has no training folder or no `test_public`;
    InputError when `root` is no folder, a named category is not there, a category has no training image, a defective
    image has no mask, a mask has no image, or two files of a folder differ in suffix only.
    """
    check_root(root, _EXPECTED)
    by_name = category_folders(root, ("train", _TEST), data_set="MVTec AD 2", expected=_EXPECTED)
    return splits_of(
        {name: by_name[name] for name in choose(categories, by_name, root)},
        train=lambda folder, name: training_records(folder / "train" / GOOD, name, needed=train_needed),
        test=_list_test,
        validation=lambda folder, name: good_records(folder / "validation" / GOOD, name),
    )


def recognise(root: Path) -> bool:
    """Whether a folder of `root` has the public test split of MVTec AD 2."""
    return any_folder(root, lambda folder: (folder / _TEST).is_dir())


def _list_test(folder: Path, category: str) -> list[Record]:
    """Records of `folder`/test_public, each defective one with its mask; LayoutError without that folder."""
    test = folder / _TEST
    if not test.is_dir():
        raise LayoutError(
            f"{test}: no such folder, so this is not MVTec AD 2; unpack the category again, or choose the right layout"
        )
    return tested_records(test, test / _TRUTH, category, masked=True)


MVTEC_AD2 = Published(
    title="MVTec AD 2",
    layout="""\
<category>/{train,validation}/good/*.png
<category>/test_public/{good,bad}/*.png
<category>/test_public/ground_truth/bad/<stem>_mask.png
<category>/{test_private,test_private_mixed}/*.png (without labels, not used)""",
    licence="CC BY-NC-SA 4.0: no commercial use; what is made from it carries the same licence",
    source="https://www.mvtec.com/company/research/datasets/mvtec-ad-2",
    reference="Heckler-Kram, Neudeck, Scheler, König, Steger: The MVTec AD 2 Dataset: Advanced Scenarios for "
    "Unsupervised Anomaly Detection, arXiv:2503.21622, 2025",
    images={
        "can": Images(412, 46, 72, 90),
        "fabric": Images(387, 43, 66, 90),
        "fruit_jelly": Images(263, 37, 20, 60),
        "rice": Images(313, 35, 42, 90),
        "sheet_metal": Images(137, 19, 24, 90),
        "vial": Images(291, 41, 35, 105),
        "wallplugs": Images(293, 33, 60, 90),
        "walnuts": Images(432, 48, 60, 90),
    },
    listing=list_mvtec_ad2,
    recognise=recognise,
)
