"""The layout of Real-IAD, listed from its JSON files and checked without opening an image.

    root/realiad_jsons/<category>.json             also realiad_jsons/realiad_jsons/<category>.json
    root/realiad_1024/<category>/...               also realiad_512, realiad_256, realiad_raw

A JSON file has `meta` (`prefix`, a folder that every path of the file is in; `normal_class`) and `train` and `test`,
lists of entries with `anomaly_class`, `image_path` and `mask_path` (null for a good image). An object is photographed
from five sides, C1 to C5; as in the authors' UniAD experiment, each photograph is a separate image.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.data.layouts.listing import LayoutError, check_root, choose
from uniad_lightning.data.layouts.patterns import listed_file
from uniad_lightning.data.layouts.published import Images, Published
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, one_line
from uniad_lightning.files.text_lines import read_text
from uniad_lightning.files.within import stays_within

_JSONS = ("realiad_jsons", "realiad_jsons/realiad_jsons")
_IMAGES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")
_EXPECTED = f"realiad_jsons/<category>.json and the images in {_IMAGES[0]}/ (or {', '.join(_IMAGES[1:])})"


def list_real_iad(root: Path, *, categories: Sequence[str] | None = None, train_needed: bool = True) -> Splits:
    """Records of the categories below `root`, all of them or those named, in the order of their JSON files.

    A defect is named by its code in the file, such as `AK`. Of several image sizes the first of 1024 (which the authors
    use), 512, 256 and raw is taken, for all categories.

    Raises LayoutError when `root` holds no JSON file or no folder of images; InputError when `root` is no folder, a
    named category is not there, a file is not JSON or lacks a key, a path leaves its folder or leads to no file, an
    image is listed twice, a defective one is among those to train on or has no mask, or there is none to train on.
    """
    check_root(root, _EXPECTED)
    jsons = _find_jsons(root)
    sizes = [root / name for name in _IMAGES if (root / name).is_dir()]
    if not jsons or not sizes:
        missing = "folder of images" if jsons else "JSON file"
        raise LayoutError(f"data.root: {root.absolute()} holds no {missing} of Real-IAD; expected {_EXPECTED}")
    chosen = choose(categories, tuple(jsons), root)
    listed = [_list_category(jsons[category], sizes[0], train_needed) for category in chosen]
    train = tuple(record for records, _ in listed for record in records)
    test = tuple(record for _, records in listed for record in records)
    return Splits(chosen, train, test)


def recognise(root: Path) -> bool:
    """Whether `root` has JSON files and images in folders named as those of Real-IAD."""
    try:
        return bool(_find_jsons(root)) and any((root / name).is_dir() for name in _IMAGES)
    except OSError:
        return False


def _find_jsons(root: Path) -> dict[str, Path]:
    """The JSON files by category, sorted, of the first folder that has some."""
    for name in _JSONS:
        files = sorted(path for path in (root / name).glob("*.json") if not path.name.startswith("."))
        if files:
            return {composed(path.stem): path for path in files}
    return {}


def _list_category(file: Path, images_in: Path, train_needed: bool) -> tuple[list[Record], list[Record]]:
    """The records to train and to test on of one JSON file."""
    try:
        content = json.loads(read_text(file))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({one_line(error)}); unpack realiad_jsons again") from error
    meta = _value(content, "meta", dict, f"{file}")
    folder = images_in / _inside(_value(meta, "prefix", str, f"{file}: meta"), f"{file}: meta.prefix")
    normal = _value(meta, "normal_class", str, f"{file}: meta")
    lists = []
    name = composed(file.stem)
    if not train_needed:
        listed = (entry for entry in content.get("train", ()) if isinstance(entry, dict))
        content["train"] = [entry for entry in listed if os.path.isfile(folder / str(entry.get("image_path")))]
    for split in ("train", "test"):
        entries = enumerate(_value(content, split, list, f"{file}"))
        lists.append([_record(entry, f"{file}: {split}[{i}]", folder, normal, name) for i, entry in entries])
    if train_needed and not lists[0]:
        raise InputError(f"{file}: train is empty, expected good images; unpack realiad_jsons again")
    _check(file, *lists, normal=normal)
    return lists[0], lists[1]


def _check(file: Path, train: list[Record], test: list[Record], *, normal: str) -> None:
    """Raises InputError unless the images to train on are good, and each image is listed once."""
    listed = set()
    for split, records in (("train", train), ("test", test)):
        for position, record in enumerate(records):
            where = f"{file}: {split}[{position}]"
            if split == "train" and record.label:
                raise InputError(f"{where}: {record.defect} to train on, expected {normal}; use plain realiad_jsons")
            if record.image in listed:
                raise InputError(f"{where}: {record.image} is listed twice; delete one of its entries")
            listed.add(record.image)


def _record(entry: object, where: str, folder: Path, normal: str, category: str) -> Record:
    kind = _value(entry, "anomaly_class", str, where)
    image = _file(folder, _value(entry, "image_path", str, where), f"{where}.image_path")
    mask = _value(entry, "mask_path", str | None, where)
    if kind == normal:
        return Record(image, (), category, GOOD, 0)
    if mask is None:
        raise InputError(f"{where}: {kind} is a defect, but mask_path is null; expected the file of its mask")
    return Record(image, (_file(folder, mask, f"{where}.mask_path"),), category, kind, 1)


def _value(owner: object, key: str, kind: type | UnionType, where: str) -> Any:
    """`owner[key]`; InputError unless `owner` is an object with this key and the value has the type `kind`."""
    if not isinstance(owner, dict) or key not in owner:
        keys = f"the keys {', '.join(owner)}" if isinstance(owner, dict) and owner else type(owner).__name__
        raise InputError(f"{where}: found {keys[:100]}, expected an object with '{key}'; unpack realiad_jsons again")
    if not isinstance(owner[key], kind):
        expected = getattr(kind, "__name__", kind)
        raise InputError(f"{where}.{key}: found {type(owner[key]).__name__}, expected {expected}; correct the file")
    return owner[key]


def _inside(text: str, where: str) -> Path:
    """`text` as a relative path; InputError when it leads out of the folder it is relative to."""
    if not stays_within(text.replace("\\", "/")):
        raise InputError(f"{where}: {text!r} leads out of the images, expected a path below them; correct the file")
    return Path(text)


def _file(folder: Path, text: str, where: str) -> Path:
    path = listed_file(folder, str(_inside(text, where)))
    if not os.path.isfile(path):  # of a name too long, too
        raise InputError(f"{where}: no file {path}; unpack this category's images again, in {folder.parent}")
    return path


REAL_IAD = Published(
    title="Real-IAD",
    layout="""\
realiad_jsons/<category>.json
realiad_1024/<category>/{OK,NG/<defect>}/<sample>/*.jpg, masks *.png""",
    licence="CC BY-NC-SA 4.0: no commercial use; what is made from it carries the same licence",
    source="https://realiad4ad.github.io/Real-IAD",
    reference="Wang, Zhu, Gao, Gan, Zhang, Gu, Qian, Chen, Ma: Real-IAD: A Real-World Multi-View Dataset for "
    "Benchmarking Versatile Industrial Anomaly Detection, CVPR 2024",
    images={"all": Images(36_465, 0, 63_256, 51_329)},  # of the unified setting; 99,721 good ones together
    listing=list_real_iad,
    recognise=recognise,
)
