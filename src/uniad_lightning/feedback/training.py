"""Images reviewed as good join the list of the next training, and those reviewed as defective leave it."""

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from uniad_lightning.data.records import Record, Splits
from uniad_lightning.data.same_images import among
from uniad_lightning.errors import InputError
from uniad_lightning.feedback.changes import Case, Proposal
from uniad_lightning.feedback.reviewed import records_of
from uniad_lightning.results.run_folder import write_text
from uniad_lightning.training.build import as_saved, data_config, listed_records

TRAIN, TEST = "train.jsonl", "test.jsonl"
_NAME = "with_feedback"  # of the data configuration


def propose(case: Case) -> Proposal:
    """Lists of the train images with those reviewed as good, without those reviewed as defective, and of test images.

    Which of the train images are held out follows from their names as before. Decisions stay as they are until the next
    training. Raises InputError where the images of the training cannot be listed or are parts of larger files, and for
    an image reviewed as good whose category is not known.
    """
    with as_saved(case.path):
        saved = OmegaConf.create(case.checkpoint["config"]).data
        data = data_config(case.cfg.data, saved)
        splits = listed_records(data)
    records = records_of(case.reviewed, splits.categories)
    train, added, removed = _next(splits, records)
    tested = [record for record in splits.test if record.image not in {r.image for r in train}]
    root = _root([*train, *tested])

    def write(folder: Path) -> list[str]:
        write_text(folder / TRAIN, _lines(train, root))
        write_text(folder / TEST, _lines(tested, root))
        lists = {"train": str((folder / TRAIN).absolute()), "test": str((folder / TEST).absolute())}
        write_text(folder / "data" / f"{_NAME}.yaml", _configuration(data, root, lists))
        return [
            f"the images of the next training: {folder / TRAIN}; train on them, with the other words as before:",
            f"uniad train --config-dir {shlex.quote(str(folder))} data={_NAME} ...",
        ]

    own = sum(not record.label for record in records) - added
    what = (
        f"{len(splits.train)} good images of the training -> {len(train)}: {added} reviewed as good added, {removed} "
        f"reviewed as defective taken out, {own} reviewed as good in the data set before; decisions change with the "
        "next training"
    )
    return Proposal(what, case.scores.score.tolist(), case.decisions, write)


def _next(splits: Splits, records: Sequence[Record]) -> tuple[list[Record], int, int]:
    """The good images of the next training, how many have joined and how many have left."""
    if not all(isinstance(record.image, Path) for record in splits.all):
        raise InputError(
            "change=training: the images of this data set are parts of larger files, which no list can name"
        )
    known = among([record.image.resolve() for record in records], splits.all)  # type: ignore[union-attr]
    new = [record for record in records if not record.label and record.image.resolve() not in known]  # type: ignore[union-attr]
    for record in new:
        if not record.category:
            raise InputError(
                f"{record.image}: its category is none of the training ({', '.join(splits.categories)}); predict again "
                "with category=NAME, and review it there"
            )
    own = [*splits.train, *splits.validation]
    defective = [record for record in records if record.label]
    wrong = among({record.image.resolve() for record in own}, defective)  # type: ignore[union-attr]
    kept = [record for record in own if record.image.resolve() not in wrong]  # type: ignore[union-attr]
    if not kept:
        raise InputError("change=training: every image of the training was reviewed as defective, and none is left")
    return [*kept, *new], len(new), len(own) - len(kept)


def _root(records: Sequence[Record]) -> Path:
    """The folder that holds all images and masks."""
    paths = [os.path.abspath(path) for record in records for path in (record.image, *record.masks)]  # type: ignore[arg-type]
    return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


def _lines(records: Sequence[Record], root: Path) -> str:
    """The records in the format of `data=meta`, one a line."""
    return "".join(f"{json.dumps(_line(record, root))}\n" for record in records)


def _line(record: Record, root: Path) -> dict[str, Any]:
    line = {
        "filename": os.path.relpath(str(record.image), root),
        "label": record.label,
        "label_name": record.defect,
        "clsname": record.category,
    }
    masks = [os.path.relpath(mask, root) for mask in record.masks]
    return {**line, "maskname": masks} if masks else line


def _configuration(data: Any, root: Path, lists: dict[str, str]) -> str:
    """The data of the training, from lists."""
    plain: Any = OmegaConf.to_container(data, resolve=True)
    plain.pop("defects", None)  # the method of the next training brings its own
    source = {"_target_": "uniad_lightning.data.layouts.json_lines.list_meta", "_partial_": True, **lists}
    plain |= {"root": str(root), "source": source, "prepare": None}
    head = "# Written by uniad feedback: the images of a training, and those reviewed as good."
    return f"{head}\n{OmegaConf.to_yaml(OmegaConf.create(plain))}"
