"""The layout of KolektorSDD, the first one, listed and split by item. Opens the labels, which alone mark what is good.

    root/<item>/PartN.jpg             <item> is kos01 to kos50, N one of its eight surfaces
    root/<item>/PartN_label.bmp       entirely black: good

No split for training on good images only was published; this one is made here. It goes by item, since the surfaces of
an item look alike: the good images of every fifth item (kos05, kos10, ...) are tested, those of the others trained on,
so that no good test image shows an item that was trained on. All defective images are tested, also those of items that
were trained on, since a fifth of the 52 would be too few to measure anything; a new item can thus raise the scores of
good test images only, which makes the test harder, not easier. The archive holds two items twice, kos01 as kos26 and
kos27 as kos34, none of them a fifth one.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.data.images.decoding import read_marks
from uniad_lightning.data.layouts.listing import LayoutError, check_root, choose, folders, image_files, is_image
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError

_CATEGORY = "commutator"
_DEFECT = "defect"
_ITEM = re.compile(r"kos(\d+)")
_LABEL = "_label"
_EVERY = 5
_EXPECTED = "the items (kos01/, ...) with Part0.jpg, Part0_label.bmp, ..."


def list_kolektor_sdd(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the one category, `commutator`, in the order defect, item, file name; the kind of defect is `defect`.

    Items are tested by their number, so missing items do not change the split of others.

    Raises LayoutError when `root` holds no item; InputError when `root` is no folder, another category is named, an
    item has no image, an image has no label, a label has no image or cannot be decoded, two files of an item differ in
    suffix only, or no good image is left to train on.
    """
    check_root(root, _EXPECTED)
    items = _find_items(root)
    if not items:
        raise LayoutError(
            f"data.root: {root.absolute()} holds no item of KolektorSDD; give the folder that holds {_EXPECTED}"
        )
    chosen = choose(categories, (_CATEGORY,), root)
    train: list[Record] = []
    good: list[Record] = []
    defective: list[Record] = []
    for item, number in items.items():
        for record in _list_item(item):
            of_item = good if number % _EVERY == 0 else train
            (defective if record.label else of_item).append(record)
    if train_needed and not train:
        raise InputError(f"data.root: {root.absolute()} has no good image to train on; unpack kos01 to kos50 there")
    return Splits(chosen, tuple(train), (*defective, *good))


def recognise(root: Path) -> bool:
    """Whether `root` has items of KolektorSDD with labels."""
    try:
        return any(_is_label(path) for item in _find_items(root) for path in item.iterdir())
    except OSError:
        return False


def _find_items(root: Path) -> dict[Path, int]:
    """The folders of `root` that are called as items, sorted, with their numbers."""
    named = ((folder, _ITEM.fullmatch(folder.name)) for folder in folders(root))
    return {folder: int(match[1]) for folder, match in named if match}


def _is_label(path: Path) -> bool:
    return is_image(path) and path.stem.endswith(_LABEL)


def _list_item(item: Path) -> list[Record]:
    """A record for each surface of an item, defective if any pixel of its label is not black."""
    files = image_files(item)
    labels = {stem: path for stem, path in files.items() if _is_label(path)}
    images = {stem: path for stem, path in files.items() if stem not in labels}
    if not files:
        raise InputError(f"{item}: no image in it, expected Part0.jpg, Part0_label.bmp, ...; unpack KolektorSDD again")
    records = []
    for stem, image in images.items():
        label = labels.pop(f"{stem}{_LABEL}", None)
        if label is None:
            expected = item / f"{stem}{_LABEL}.bmp"
            raise InputError(f"{image}: no label, so whether it is good is unknown; expected {expected}, black if good")
        if read_marks(label).any():
            records.append(Record(image, (label,), _CATEGORY, _DEFECT, 1))
        else:
            records.append(Record(image, (), _CATEGORY, GOOD, 0))
    for stem, label in labels.items():
        expected = item / f"{stem.removesuffix(_LABEL)}.jpg"
        raise InputError(f"{label}: the label has no image; expected {expected}, or delete the label")
    return records


KOLEKTOR_SDD = Published(
    title="KolektorSDD",
    layout="""\
<item>/PartN.jpg (kos01 to kos50)
<item>/PartN_label.bmp (black: good)""",
    licence="CC BY-NC-SA 4.0: no commercial use; what is made from it carries the same licence",
    source="https://www.vicos.si/resources/kolektorsdd",
    reference="Tabernik, Šela, Skvarč, Skočaj: Segmentation-based deep-learning approach for surface-defect detection, "
    "Journal of Intelligent Manufacturing 31, 2020",
    images={_CATEGORY: Images(None, 0, None, 52)},  # and 347 good ones, which are split here
    listing=list_kolektor_sdd,
    recognise=recognise,
)
