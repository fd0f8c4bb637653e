"""The layout of MVTec LOCO AD, listed and checked without opening an image.

    root/<category>/{train,validation}/good/*.png
    root/<category>/test/{good,logical_anomalies,structural_anomalies}/*.png
    root/<category>/ground_truth/<defect>/<stem>/*.png        every mask of the image <stem>

An image has one mask per defect; what any of them marks is defective. `validation` becomes `Splits.validation`. The
saturation thresholds of the benchmark's own measure (`defects_config.json`) are not read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from uniad_lightning.data.layouts.listing import (
    LayoutError,
    any_folder,
    category_folders,
    check_root,
    choose,
    good_records,
    image_files,
    is_image,
    kinds_of,
    named_folders,
    skip_images_in,
    splits_of,
    training_records,
)
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError

_KINDS = ("logical_anomalies", "structural_anomalies")
_EXPECTED = (
    "the categories (breakfast_box/, ...) with train/good/, test/logical_anomalies/ and test/structural_anomalies/"
)


def list_mvtec_loco(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order category, defect, file name.

    `Record.masks` holds every mask of an image, by file name. A category without `validation` has no such records.

    Raises LayoutError when `root` holds no category, or a category has no training folder or neither kind of anomaly;
    InputError when `root` is no folder, a named category is not there, a category has no training image, a defective
    image has no mask, a folder of masks has no image, or two files of a folder differ in suffix only.
    """
    check_root(root, _EXPECTED)
    by_name = category_folders(root, ("train", "test"), data_set="MVTec LOCO AD", expected=_EXPECTED)
    return splits_of(
        {name: by_name[name] for name in choose(categories, by_name, root)},
        train=lambda folder, name: training_records(folder / "train" / GOOD, name, needed=train_needed),
        test=_list_test,
        validation=lambda folder, name: good_records(folder / "validation" / GOOD, name),
    )


def recognise(root: Path) -> bool:
    """Whether a folder of `root` has a kind of anomaly of MVTec LOCO AD and each mask in the folder of its image."""
    return any_folder(root, lambda folder: any(_has_kind(folder, kind) for kind in _KINDS))


def _has_kind(category: Path, kind: str) -> bool:
    masks = category / "ground_truth" / kind
    stray = masks.is_dir() and any(is_image(path) for path in masks.iterdir())
    return (category / "test" / kind).is_dir() and not stray


def _list_test(folder: Path, category: str) -> list[Record]:
    """Records of `folder`/test, each defective one with all its masks; LayoutError without any kind of anomaly."""
    test = folder / "test"
    truth = folder / "ground_truth"
    if not any((test / kind).is_dir() for kind in _KINDS):
        raise LayoutError(
            f"{test}: neither {' nor '.join(_KINDS)} in it, so this is not MVTec LOCO AD; "
            "unpack the category again, or choose the right layout"
        )
    skip_images_in(test)
    records = []
    for defect, (images_in, masks_in) in kinds_of(test, truth).items():
        if defect == GOOD:
            records += good_records(images_in, category)
        else:
            images = image_files(images_in)
            masks = _masks(images, images_in=images_in, masks_in=masks_in)
            records += [Record(images[stem], masks[stem], category, defect, 1) for stem in images]
    return records


def _masks(images: Mapping[str, Path], *, images_in: Path, masks_in: Path) -> dict[str, tuple[Path, ...]]:
    """All masks of each image, by the image's stem: the files of `masks_in`/<stem>."""
    masks = {}
    marked = named_folders(masks_in)
    for stem, image in images.items():
        masks[stem] = tuple(image_files(marked.get(stem, masks_in / stem)).values())
        if not masks[stem]:
            state = "is empty" if (masks_in / stem).is_dir() else "does not exist"
            raise InputError(
                f"{image}: the defective image has no mask; expected {masks_in / stem / '000.png'} and, for more "
                f"defects, 001.png and so on, but the folder {state}"
            )
    for stem, folder in marked.items():
        if stem not in images:
            raise InputError(
                f"{folder}: the folder of masks has no image; expected {images_in / f'{folder.name}.png'} "
                "(any image suffix), or delete the folder"
            )
    return masks


MVTEC_LOCO = Published(
    title="MVTec LOCO AD",
    layout="""\
<category>/{train,validation}/good/*.png
<category>/test/{good,logical_anomalies,structural_anomalies}/*.png
<category>/ground_truth/{logical_anomalies,structural_anomalies}/<stem>/000.png, 001.png, ...""",
    licence="CC BY-NC-SA 4.0: no commercial use; what is made from it carries the same licence",
    source="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    reference="Bergmann, Batzner, Fauser, Sattlegger, Steger: Beyond Dents and Scratches: Logical Constraints in "
    "Unsupervised Anomaly Detection and Localization, International Journal of Computer Vision 130, 2022",
    images={
        "breakfast_box": Images(351, 62, 102, 173),
        "juice_bottle": Images(335, 54, 94, 236),
        "pushpins": Images(372, 69, 138, 172),
        "screw_bag": Images(360, 60, 122, 219),
        # The paper counts 354 and 59 images without defect to train and validate on, the archive holds 360 and 60.
        "splicing_connectors": Images(None, None, 119, 193),
    },
    listing=list_mvtec_loco,
    recognise=recognise,
)
