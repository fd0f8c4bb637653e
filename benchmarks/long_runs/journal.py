"""What files are fed to `uniad predict`, and whether the rows are those of the files, each once."""

import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from uniad_lightning import Detector

TOLERANCE = 1e-3  # of a score; those of two pictures differ by more, those of one in batches of two sizes by less
SUFFIXES = (".png", ".bmp", ".jpg", ".tif")
Score = float | None  # None: a file that cannot be read


class Picture(NamedTuple):
    """A file's content, and the score that the detector gives it."""

    suffix: str
    content: bytes
    score: Score


def pictures_of(detector: Detector, paths: list[Path], folder: Path) -> list[Picture]:
    """The images in every format, with the scores of the files that come of them; of one format all of them differ."""
    found: list[Picture] = []
    for path in paths:
        for suffix in SUFFIXES:
            file = folder / f"picture{suffix}"
            Image.open(path).convert("RGB").save(file)
            score = float(detector.predict(file).score)
            if not any(other.suffix == suffix and abs(other.score - score) < 10 * TOLERANCE for other in found):
                found.append(Picture(suffix, file.read_bytes(), score))
    return found


def broken_of(picture: Picture) -> list[Picture]:
    """Files with the suffix of an image that are none."""
    contents = (picture.content[: len(picture.content) // 2], b"no image\n" * 20, b"")
    return [Picture(picture.suffix, content, None) for content in contents]


class Journal:
    """The rows that are written to `path`, read as they come: of each name the scores, in their order."""

    def __init__(self, path: Path):
        self.path = path
        self.scores: dict[str, list[Score]] = defaultdict(list)
        self.drawn: list[str] = []  # overlays and masks
        self.rows = 0
        self._read = 0  # bytes

    def read(self) -> None:
        """Read what is new; a row that is not whole yet is left."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                row = json.loads(line)
                self.scores[row["path"]].append(None if row["error"] else row["score"])
                self.drawn += [name for name in (row["overlay"], row["mask"]) if name]
                self.rows += 1


def faults_of(expected: dict[str, list[Score]], found: dict[str, list[Score]]) -> list[str]:
    """A line for each name whose rows are not, one for one and in their order, those of the files fed."""
    faults = []
    for name in sorted({*expected, *found}):
        fed, rows = expected.get(name, []), found.get(name, [])
        if len(fed) != len(rows):
            faults.append(f"{name}: fed {len(fed)} times, {len(rows)} rows")
        elif not all(map(alike, fed, rows)):
            faults.append(f"{name}: rows of another content: expected scores {fed}, found {rows}")
    return faults


def alike(one: Score, other: Score) -> bool:
    """Whether two scores are of one picture, or both of none."""
    return one is other if one is None or other is None else abs(one - other) <= TOLERANCE
