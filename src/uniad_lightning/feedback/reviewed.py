"""Images with the verdict that counts, found again on the disk and decided by one boundary or another."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from uniad_lightning.calibration.scores import Scores
from uniad_lightning.data.layouts.folder_categories import DEFECTIVE
from uniad_lightning.data.records import Record
from uniad_lightning.errors import InputError
from uniad_lightning.feedback.counting import counted
from uniad_lightning.feedback.history import Entry, latest, read_history
from uniad_lightning.feedback.predictions import Predictions
from uniad_lightning.feedback.verdicts import GOOD
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.training.build import warn

REFUSE, SKIP = ON_MISSING = ("refuse", "skip")


class Reviewed(NamedTuple):
    """An image with a verdict.

    Attributes:
        entry: the verdict that counts.
        file: the image.
        category: given for all images of its predictions; None where that found in an image decides.
    """

    entry: Entry
    file: Path
    category: str | None

    @property
    def good(self) -> bool:
        """Whether it was reviewed as good."""
        return self.entry.verdict == GOOD


def find_images(folders: Iterable[Predictions], *, images: Path | None, on_missing: str) -> list[Reviewed]:
    """The images with a verdict in the histories of `folders`; `images` is where they lie now, None: where they did.

    Each file is there once, with the latest verdict on it in any of the folders.

    Those that are gone, or of another size than the one reviewed, are left out with a warning where `on_missing` is
    `skip`. Raises InputError for them otherwise, and where no image is left.
    """
    if on_missing not in ON_MISSING:
        raise InputError(f"on_missing={on_missing}: expected one of {', '.join(ON_MISSING)}")
    found: list[Reviewed] = []
    missing: list[str] = []
    for name, (one, file) in _latest_of_files(folders, images).items():
        fault = "it is a frame, or came without a whole path" if file is None else _fault(file, one.entry.size)
        if fault:
            missing.append(f"{name}: {fault}")
        else:
            found.append(one)
    if missing:
        total = len(missing) + len(found)
        said = f"{len(missing)} of {counted(total, 'image')} with a verdict cannot be used; the first, {missing[0]}"
        if on_missing == REFUSE or not found:
            raise InputError(f"{said}; give the folder where they lie now with images=FOLDER, or on_missing=skip")
        warn(said)
    if not found:
        raise InputError("predictions: no image has a verdict yet; give some with verdicts=FILE.csv")
    return found


def _latest_of_files(folders: Iterable[Predictions], images: Path | None) -> dict[str, tuple[Reviewed, Path | None]]:
    """The verdict that counts of each file in all `folders`: the latest one, of equal times that of the last folder.

    By the file as it was named first; those without a file are by their folder and name.
    """
    found: dict[str, tuple[Reviewed, Path | None]] = {}
    names: dict[str, str] = {}
    for predictions in folders:
        entries = latest(read_history(predictions.folder))
        rows = predictions.rows(entries)
        for name, entry in entries.items():
            path = rows[name]["path"] if name in rows else name
            file = predictions.file_of(path, images)
            shown = f"{file or predictions.folder / path}"
            shown = names.setdefault(os.path.realpath(shown), shown)
            if shown not in found or entry.when >= found[shown][0].entry.when:
                found[shown] = Reviewed(entry, file or Path(shown), predictions.category), file
    return found


def _fault(file: Path, size: int | None) -> str:
    """What is wrong with a file; empty where it is the one that was reviewed."""
    try:
        now = file.stat().st_size if file.is_file() else None
    except OSError:
        now = None
    if now is None:
        return "no such file"
    return "" if size in (None, now) else f"another image by now ({now} bytes, the one inspected had {size})"


def unlabelled(reviewed: Iterable[Reviewed]) -> list[Record]:
    """Their files alone, to be scored."""
    return [Record(one.file, (), "", "", 0) for one in reviewed]


def records_of(reviewed: Iterable[Reviewed], known: Sequence[str]) -> list[Record]:
    """Records of the images, with the category of `known` ones that was given to or found in it; empty for another."""
    return [
        Record(one.file, (), _category(one, known), GOOD if one.good else DEFECTIVE, 0 if one.good else 1)
        for one in reviewed
    ]


def _category(one: Reviewed, known: Sequence[str]) -> str:
    name = one.category or one.entry.category or (known[0] if len(known) == 1 else "")
    return name if name in known else ""


def decisions(
    calibration: Calibration, familiarity: Familiarity | None, scores: Scores, reviewed: Sequence[Reviewed]
) -> list[str]:
    """What `uniad predict` decides of each image with these boundaries: `good`, `defective` or `unknown`."""
    names: list[str | None] = [None] * len(reviewed)
    strange = [False] * len(reviewed)
    if familiarity is not None and scores.descriptor is not None:
        distance, places = familiarity.nearest(scores.descriptor)
        names = [familiarity.names[place] if place >= 0 else None for place in places.tolist()]
        strange = (distance > familiarity.boundary).tolist()
    found = []
    for one, score, name, unfamiliar in zip(reviewed, scores.score, names, strange, strict=True):
        given = calibration.categories.get(one.category or "")
        boundary = given or calibration.deciding(name)
        found.append("defective" if not score <= boundary.score else "unknown" if unfamiliar else "good")
    return found
