"""The layout of VisA as Amazon distributes it, listed from its split and checked without opening an image.

    root/split_csv/1cls.csv                                   the train and test images
    root/<category>/Data/Images/{Normal,Anomaly}/*.JPG
    root/<category>/Data/Masks/Anomaly/*.png

The columns of the CSV are object, split (train or test), label (normal or anomaly), image and mask, the last two as
paths below `root`; images that it does not list are not used. A VisA sorted into train, test and ground_truth has
the layout of MVTec AD.
"""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.listing import LayoutError, any_folder, check_root, choose
from uniad_lightning.data.layouts.patterns import listed_file
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, one_line
from uniad_lightning.files.text_lines import read_text
from uniad_lightning.files.within import stays_within

_CSV = "split_csv/1cls.csv"
_COLUMNS = ("object", "split", "label", "image", "mask")
_EXPECTED = f"{_CSV} and the categories (candle/, ...) with Data/Images/ and Data/Masks/"


def list_visa(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the categories that `root`/split_csv/1cls.csv lists, all of them or those named.

    They are in the order category, defect, file name; the kind of defect is `anomaly`. Only the rows of the chosen
    categories are checked.

    Raises LayoutError without that CSV; InputError, which names the row's line, when it lacks a column, a split or
    label is unknown, a path leaves `root` or leads to no file, an image is listed twice or is not in the folder of its
    object, an anomaly is to be trained on or has no mask, or a normal image has one; and when `root` is no folder, the
    CSV cannot be read or lists no image, a named category is not in it, or one has no training image.
    """
    check_root(root, _EXPECTED)
    file = root / _CSV
    rows = _read(file)
    chosen = choose(categories, {row["object"] for _, row in rows}, root)
    splits: dict[str, list[Record]] = {"train": [], "test": []}
    first: dict[str, int] = {}
    for line, row in rows:
        absent = row["split"] == "train" and not train_needed and not os.path.exists(listed_file(root, row["image"]))
        if row["object"] in chosen and not absent:
            where = f"{file}:{line}"
            if first.setdefault(row["image"], line) != line:
                raise InputError(f"{where}: {row['image']} is on line {first[row['image']]}, too; delete one of them")
            record = _record(row, root, where)
            splits[row["split"]].append(record)
    for category in chosen if train_needed else ():
        if not any(record.category == category for record in splits["train"]):
            raise InputError(f"{file}: no image to train on for {category}; expected rows with the split train")
    train, test = (sorted(part, key=lambda r: (r.category, r.defect, str(r.image))) for part in splits.values())
    return Splits(chosen, tuple(train), tuple(test))


def recognise(root: Path) -> bool:
    """Whether a folder of `root` has its images where VisA has them."""
    return any_folder(root, lambda folder: (folder / "Data" / "Images").is_dir())


def _read(file: Path) -> list[tuple[int, dict[str, str]]]:
    """The rows of the CSV with the line each ends on, and with all columns; at least one."""
    if not file.is_file():
        raise LayoutError(
            f"{file}: no such file, but VisA is split by it; give the folder that holds {_EXPECTED}, "
            f"or put {_CSV} of {VISA.source} there"
        )
    try:
        text = read_text(file)
        delimiter = "," if "," in text.partition("\n")[0] else ";"  # as a spreadsheet saves it where , is in numbers
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=delimiter)
        columns = [composed(column.strip()) for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = [(reader.line_num, {**row, "object": composed(row.get("object") or "")}) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as CSV ({one_line(error)}); unpack VisA again") from error
    for column in _COLUMNS:
        if column not in columns:
            found = ",".join(columns) or "none"
            raise InputError(f"{file}:1: no column '{column}'; found {found[:100]}, expected {','.join(_COLUMNS)}")
    if not rows:
        raise InputError(f"{file}: lists no image; unpack VisA again")
    return rows


def _record(row: dict[str, str], root: Path, where: str) -> Record:
    """The record of a row; InputError for a row that contradicts itself or names a missing file."""
    split, label = row["split"], row["label"]
    for column, known in (("split", ("train", "test")), ("label", ("normal", "anomaly"))):
        if row[column] not in known:
            raise InputError(f"{where}: {column} is '{row[column]}', expected {' or '.join(known)}; correct the file")
    image = _file(root, row["image"], f"{where}: image")
    if composed(image.relative_to(root).parts[0]) != row["object"]:
        raise InputError(
            f"{where}: {row['image']} is not in the folder of its object '{row['object']}'; correct either"
        )
    if label == "normal":
        if row["mask"]:
            raise InputError(f"{where}: a normal image with mask {row['mask']}; correct its label or empty its mask")
        return Record(image, (), row["object"], GOOD, 0)
    if split == "train":
        raise InputError(f"{where}: an anomaly to train on, expected normal images only; correct its split or label")
    return Record(image, (_file(root, row["mask"], f"{where}: mask"),), row["object"], label, 1)


def _file(root: Path, text: str, where: str) -> Path:
    if not text:
        raise InputError(f"{where} is empty, expected the path of an image below {root}; correct the file")
    if not stays_within(text.replace("\\", "/")):
        raise InputError(f"{where} is '{text}', which leaves data.root={root}; expected a path below it")
    path = listed_file(root, text)
    if not os.path.isfile(path):  # of a name too long, too
        raise InputError(f"{where}: no file {path}; unpack VisA again, or choose other data.categories")
    return path


VISA = Published(
    title="VisA",
    layout="""\
split_csv/1cls.csv
<category>/Data/Images/{Normal,Anomaly}/*.JPG
<category>/Data/Masks/Anomaly/<stem>.png""",
    licence="CC BY 4.0: any use that gives credit to its authors",
    source="https://github.com/amazon-science/spot-diff",
    reference="Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference Self-Supervised Pre-training for Anomaly "
    "Detection and Segmentation, ECCV 2022",
    images={
        "candle": Images(900, 0, 100, 100),
        "capsules": Images(542, 0, 60, 100),
        "cashew": Images(450, 0, 50, 100),
        "chewinggum": Images(453, 0, 50, 100),
        "fryum": Images(450, 0, 50, 100),
        "macaroni1": Images(900, 0, 100, 100),
        "macaroni2": Images(900, 0, 100, 100),
        "pcb1": Images(904, 0, 100, 100),
        "pcb2": Images(901, 0, 100, 100),
        "pcb3": Images(905, 0, 101, 100),
        "pcb4": Images(904, 0, 101, 100),
        "pipe_fryum": Images(450, 0, 50, 100),
    },
    listing=list_visa,
    recognise=recognise,
)
