"""The layout of BTAD, listed and checked without opening an image.

    root/<category>/train/ok/*               <category> is 01, 02 or 03
    root/<category>/test/{ok,ko}/*           ok is good, ko defective
    root/<category>/ground_truth/ko/*        the mask of an image has its name, not always its suffix

The archive mixes .bmp and .png. A few masks of defective images are entirely black: such an image stays defective,
without a defective pixel. `ground_truth/ok` is ignored.
"""

from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.data.layouts.listing import (
    any_folder,
    category_folders,
    check_root,
    choose,
    good_records,
    image_files,
    kinds_of,
    pair,
    skip_images_in,
    splits_of,
    training_records,
)
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import Record, Splits

_OK = "ok"
_EXPECTED = "the categories (01/, 02/, 03/) with train/ok/, test/ok/ and test/ko/"


def list_btad(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order category, defect, file name.

    The kind of defect is `ko`. A category without `test` is one to train on only. In a YAML file quote the names of
    `categories`, since 01 is a number there.

    Raises LayoutError when `root` holds no category, or a category has no training folder; InputError when `root` is no
    folder, a named category is not there, a category has no training image, a defective image has no mask, a mask has
    no image, or two files of a folder differ in suffix only.
    """
    check_root(root, _EXPECTED)
    by_name = category_folders(root, (f"train/{_OK}", f"test/{_OK}"), data_set="BTAD", expected=_EXPECTED)
    return splits_of(
        {name: by_name[name] for name in choose(categories, by_name, root)},
        train=lambda folder, name: training_records(folder / "train" / _OK, name, needed=train_needed),
        test=_list_test,
    )


def recognise(root: Path) -> bool:
    """Whether a folder of `root` has the training images of BTAD."""
    return any_folder(root, lambda folder: (folder / "train" / _OK).is_dir())


def _list_test(folder: Path, category: str) -> list[Record]:
    """Records of `folder`/test, the good ones first, each defective one with its mask; none without that folder."""
    test = folder / "test"
    skip_images_in(test)
    records = good_records(test / _OK, category)
    for defect, (images_in, masks_in) in kinds_of(test, folder / "ground_truth").items():
        if defect != _OK:
            images = image_files(images_in)
            masks = pair(images, image_files(masks_in), images_in=images_in, masks_in=masks_in, ending="")
            records += [Record(images[stem], (masks[stem],), category, defect, 1) for stem in images]
    return records


BTAD = Published(
    title="BTAD",
    layout="""\
<category>/train/ok/*.{bmp,png} (01, 02 and 03)
<category>/test/{ok,ko}/*.{bmp,png}
<category>/ground_truth/ko/<stem>.{bmp,png}""",
    licence="CC BY-SA 4.0: what is made from it carries the same licence",
    source="https://github.com/pankajmishra000/VT-ADL",
    reference="Mishra, Verk, Fornasier, Piciarelli, Foresti: VT-ADL: A Vision Transformer Network for Image Anomaly "
    "Detection and Localization, ISIE 2021",
    images={
        "01": Images(400, 0, 21, 49),
        # The authors give 1000 training images to product 2 and 399 to product 3; the folders have it the other way.
        "02": Images(399, 0, 30, 200),
        "03": Images(1000, 0, 400, 41),
    },
    listing=list_btad,
    recognise=recognise,
)
