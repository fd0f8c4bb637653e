"""Lists of images in the reference implementation's format: a JSON object on each line of one file per split.

    {"filename": "bottle/test/hole/000.png", "label": 1, "label_name": "defective",
     "maskname": "bottle/ground_truth/hole/000_mask.png", "clsname": "bottle"}           on one line

Only `filename` and `label` (0 good, 1 defective) are needed, as in the reference; `maskname` may be a list of several
masks, whose union is the defect. Lists written on Windows are accepted: names with backslashes, UTF-16 with its byte
order mark. Format: `datasets/custom_dataset.py` and `data/MVTec-AD/*.json` of github.com/zhiyuanyou/UniAD. Opens no
image.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.data.layouts.category_names import check_names, composed
from uniad_lightning.data.layouts.listing import check_root, choose
from uniad_lightning.data.layouts.patterns import listed_file, on_disk
from uniad_lightning.data.records import GOOD, Record, Splits
from uniad_lightning.errors import InputError, did_you_mean, one_line
from uniad_lightning.files.text_lines import read_text
from uniad_lightning.files.user_path import expand

DEFECTIVE = "defective"  # the reference's `label_name` of every kind of defect
KEYS = ("filename", "label", "label_name", "maskname", "clsname")
_EXAMPLE = '{"filename": "bottle/train/good/000.png", "label": 0, "clsname": "bottle"}'


class _Line(NamedTuple):
    where: str  # FILE:LINE
    record: Record


def list_meta(
    root: Path, *, train: str | None, test: str, categories: Sequence[str] | None = None, train_needed: bool = True
) -> Splits:
    """Records of the images that the files `train` and `test` list, of all categories or of those named.

    Both are paths, absolute or relative to `root`; the file names in them are relative to `root`. Without
    `train_needed`, `train` may be None, and its images may be missing. Records are sorted by category, defect and file,
    as those of `list_mvtec`.

    The category is `clsname`, or as in the reference the fourth part from the end of `filename`. The kind of defect is
    `label_name`, or the folder of the image where that is missing or `defective`. A defective image without `maskname`
    is left out of the pixel metrics (the reference counts all of its pixels as defective); `maskname` of a good image
    is ignored.

    Raises InputError, with FILE:LINE where a line is at fault, for a missing or empty list, an invalid line, a
    defective image in `train`, an image listed twice, a missing file of the chosen categories, and a category
    of `test` alone.
    """
    check_root(root, "the images that the lists name")
    if train is None and train_needed:
        raise InputError("data.source.train: needs a value; give the list of the good images to train on")
    lines = {
        "train": [] if train is None else _read(root, train, "data.source.train"),
        "test": _read(root, test, "data.source.test"),
    }
    trained = _first_lines(lines["test"]) if train is None else _check_training(lines["train"])
    for line in lines["test"]:
        if line.record.category not in trained:
            hint = did_you_mean(line.record.category, trained)
            raise InputError(f"{line.where}: no training image has the category '{line.record.category}'.{hint}")
    _refuse_repeated(lines["train"] + lines["test"])
    chosen = choose(categories, sorted(trained), root)
    if not train_needed:  # nor its images
        lines["train"] = [line for line in lines["train"] if os.path.isfile(str(line.record.image))]
    return Splits(chosen, *(_records(lines[key], chosen, root) for key in ("train", "test")))


def _check_training(lines: Sequence[_Line]) -> dict[str, str]:
    """Where each category of the training lines occurs first; InputError for a defective image."""
    for where, record in lines:
        if record.label == 1:
            raise InputError(
                f"{where}: {record.image} is defective (label 1), and training is on good images alone; "
                "move the line to the test list"
            )
    return _first_lines(lines)


def _first_lines(lines: Sequence[_Line]) -> dict[str, str]:
    """Where each category occurs first; InputError for a name that cannot be used."""
    first: dict[str, str] = {}
    for where, record in lines:
        first.setdefault(record.category, where)
    check_names(first)
    return first


def _records(lines: Sequence[_Line], chosen: Sequence[str], root: Path) -> tuple[Record, ...]:
    """The records of the chosen categories, sorted; InputError for a file that does not exist."""
    wanted = [line for line in lines if line.record.category in chosen]
    for where, record in wanted:
        for path in (record.image, *record.masks):
            if isinstance(path, Path) and not os.path.isfile(path):  # of a name too long, too
                raise InputError(f"{where}: {path} is not there; expected names relative to data.root={root}")
    return tuple(sorted((line.record for line in wanted), key=lambda r: (r.category, r.defect, r.image)))


def _refuse_repeated(lines: Sequence[_Line]) -> None:
    taken: dict[object, str] = {}
    for where, record in lines:
        other = taken.setdefault(record.image, where)
        if other != where:
            raise InputError(f"{where}: {record.image} is already listed at {other}; delete one of the lines")


def _read(root: Path, given: str, key: str) -> list[_Line]:
    """The lines of one list, in its order, without blank ones."""
    file = on_disk(root / expand(str(given), within=root))
    if not file.is_file():
        raise InputError(f"{key}: {file} is no file; give the list's path, absolute or relative to data.root")
    try:
        text = read_text(file)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{file}: not UTF-8 at byte {error.start}; expected lines such as {_EXAMPLE}, saved as UTF-8"
        ) from None
    # Not `splitlines`, which also splits at line separators that JSON allows inside a text.
    numbered = [(f"{file}:{number}", line) for number, line in enumerate(text.split("\n"), start=1)]
    lines = [_Line(where, _record(_parse(line, where), where, root)) for where, line in numbered if line.strip()]
    if not lines:
        raise InputError(f"{file}: the list is empty; expected lines such as {_EXAMPLE}")
    return lines


def _parse(line: str, where: str) -> dict[str, Any]:
    """The object on one line, with all required keys, and all known ones of the right type."""
    try:
        meta = _loaded(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON, {error.msg} at column {error.colno}; expected {_EXAMPLE}") from None
    except (ValueError, RecursionError) as error:  # a number too long, or nesting too deep
        raise InputError(f"{where}: {one_line(error)}; expected {_EXAMPLE}") from None
    if not isinstance(meta, dict):
        raise InputError(f"{where}: no JSON object; expected one such as {_EXAMPLE}")
    for key in ("filename", "label"):
        if key not in meta:
            raise InputError(f"{where}: no '{key}'.{did_you_mean(key, meta.keys() - KEYS)} Expected {_EXAMPLE}")
    # By type, since JSON's `true` equals 1.
    if type(meta["label"]) is not int or meta["label"] not in (0, 1):
        raise InputError(f"{where}: label {json.dumps(meta['label'])}; expected 0 for good or 1 for defective")
    for key in ("filename", "label_name", "clsname"):
        value = meta.get(key)
        if not isinstance(value, str | None) or (key == "filename" and not value):
            raise InputError(f"{where}: {key} {json.dumps(value)}; expected a text, in quotes")
    masks = meta.get("maskname")
    meta["maskname"] = [] if masks in (None, "") else [masks] if isinstance(masks, str) else masks
    if not isinstance(meta["maskname"], list) or not all(isinstance(mask, str) and mask for mask in meta["maskname"]):
        raise InputError(f"{where}: maskname {json.dumps(masks)}; expected a text, in quotes, or a list of texts")
    return meta


def _loaded(line: str) -> Any:
    """The JSON value of a line; backslashes of Windows need not be escaped."""
    try:
        value = json.loads(line)
        names = [value.get(key) for key in ("filename", "maskname")] if isinstance(value, dict) else []
        # Such as the \b of `photos\bottle`, a control character in JSON.
        if not re.search(r"\\[bfnrt]", json.dumps(names, ensure_ascii=False)):
            return value
    except json.JSONDecodeError as error:
        if "escape" not in error.msg:
            raise
    return json.loads(re.sub(r'\\(?!")', "/", line))


def _record(meta: Mapping[str, Any], where: str, root: Path) -> Record:
    image = _inside(root, meta["filename"], where, "filename")
    parts = image.relative_to(root).parts
    category = composed(meta.get("clsname") or (parts[-4] if len(parts) > 3 else ""))
    if not category:
        raise InputError(
            f"{where}: no 'clsname', and {meta['filename']} has no category to take, as <category>/<split>/<defect>/"
            "<file> has; add clsname"
        )
    name = meta.get("label_name")
    if meta["label"] == 0:
        if name == DEFECTIVE:
            raise InputError(f"{where}: label 0 (good), but label_name '{name}'; correct one of them")
        return Record(image, (), category, GOOD, 0)
    if name in (None, "", DEFECTIVE):
        name = parts[-2] if len(parts) > 1 else DEFECTIVE
    if name == GOOD:
        raise InputError(f"{where}: label 1 (defective), but its label_name or folder is '{GOOD}'; correct one of them")
    masks = dict.fromkeys(_inside(root, mask, where, "maskname") for mask in meta["maskname"])
    return Record(image, tuple(masks), category, composed(name), 1)


def _inside(root: Path, name: str, where: str, key: str) -> Path:
    """The file `name` below `root`; InputError for one outside."""
    base = os.path.abspath(root)
    path = Path(os.path.normpath(listed_file(Path(base), name)))
    if not path.is_relative_to(base):
        raise InputError(f"{where}: {key} '{name}' leaves data.root={base}; give a data.root that holds all images")
    return root / path.relative_to(base)
