"""A folder of `uniad predict` as feedback needs it: rows of images that a person names, and where their files are."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from glob import has_magic
from pathlib import Path
from typing import Any, NamedTuple

from uniad_lightning.data.layouts.listing import is_image
from uniad_lightning.errors import InputError, did_you_mean, printable
from uniad_lightning.files.json_file import read_object
from uniad_lightning.files.user_path import expand
from uniad_lightning.prediction.files import SETTINGS, TABLE, part_files
from uniad_lightning.prediction.rows import Row, read_rows
from uniad_lightning.prediction.sources.address import is_live
from uniad_lightning.prediction.sources.folder_walk import split
from uniad_lightning.prediction.sources.video import SUFFIXES as VIDEO_SUFFIXES
from uniad_lightning.results.run_folder import JOURNAL

_MANY = 20_000  # names among which a similar one is looked for: more would take seconds


class Predictions(NamedTuple):
    """A folder of predictions.

    Attributes:
        folder: the folder.
        settings: what `predictions.json` says of the call that made them.
    """

    folder: Path
    settings: Mapping[str, Any]

    @property
    def checkpoint(self) -> Path:
        """The file of the detector that made them."""
        return Path(str(self.settings.get("ckpt_path", "")))

    @property
    def checkpoint_changed(self) -> str:
        """When that file had last been changed, in UTC; empty where it is not known."""
        changed = self.settings.get("ckpt_changed")
        if isinstance(changed, bool) or not isinstance(changed, int):
            return ""
        try:
            return datetime.fromtimestamp(changed / 1e9, timezone.utc).isoformat(timespec="milliseconds")
        except (OverflowError, OSError, ValueError):  # of no time on this machine
            raise InputError(
                f"{self.folder / SETTINGS}: ckpt_changed is {changed!s:.40}, expected nanoseconds since 1970; restore "
                "it, or predict anew"
            ) from None

    @property
    def category(self) -> str | None:
        """The category that was given to all images; None where that found in an image decides."""
        given = self.settings.get("category")
        return None if given is None else str(given)

    def rows(self, wanted: Iterable[str]) -> dict[str, Row]:
        """The rows of the images called `wanted`, as a table or a page shows their paths; the others are left out.

        The whole name wins over one that is the same without blanks around it. Of a file that was replaced meanwhile it
        is the last row. Raises InputError for a name that several images have.
        """
        names = {*wanted}
        stripped = {name.strip() for name in names}
        whole: dict[str, dict[str, Row]] = {}
        near: dict[str, dict[str, Row]] = {}
        for _, row in read_rows(self.folder / JOURNAL):
            shown = {cell_of(row["path"]), printable(row["path"])}
            for name in shown & names:
                whole.setdefault(name, {})[row["path"]] = row
            for name in {text.strip() for text in shown} & stripped:
                near.setdefault(name, {})[row["path"]] = row
        found = {name: whole.get(name) or near.get(name.strip()) for name in names}
        return {name: self._only(name, rows) for name, rows in found.items() if rows}

    def _only(self, name: str, rows: Mapping[str, Row]) -> Row:
        """The row of the image called `name`; InputError where there are several."""
        if len(rows) > 1:
            raise InputError(
                f"{name!r:.200}: {len(rows)} images of {self.folder} are written so; rename all but one of them, and "
                "predict again"
            )
        return next(iter(rows.values()))

    def similar(self, name: str) -> str:
        """` Did you mean ...?` for a name that has no row."""
        known = [row["path"] for _, (_, row) in zip(range(_MANY), read_rows(self.folder / JOURNAL), strict=False)]
        same_file = [path for path in known if Path(path).name == Path(name.replace("\\", "/")).name]
        return did_you_mean(name, [cell_of(path) for path in same_file or known])

    def file_of(self, name: str, images: Path | None) -> Path | None:
        """The file of the image `name`; None of a frame, and of what came on the standard input without a whole path.

        `images` is where they lie now, if not where they have been inspected.
        """
        given = str(self.settings.get("input", "-"))
        if images is not None:
            return images / name
        if is_live(given) or Path(given).suffix.lower() in VIDEO_SUFFIXES and not Path(given).is_dir():
            return None
        if given == "-":
            return Path(name) if Path(name).is_absolute() else None
        folder = _folder_of(Path(given))
        return folder / expand(name, within=folder)


def open_predictions(given: str | Path) -> Predictions:
    """The predictions in a folder, or those of a file in it. Raises InputError for what holds none."""
    path = expand(str(given))
    folder = path.parent if path.name in (TABLE, JOURNAL) else path
    expected = f"expected the output_dir of uniad predict, or the {TABLE} in it"
    if not folder.is_dir():
        raise InputError(f"predictions={given}: no such folder; {expected}")
    if part_files(folder):
        raise InputError(f"{folder}: holds parts of several processes; uniad predict ... resume=true merges them")
    if not (folder / JOURNAL).is_file():
        raise InputError(f"predictions={given}: {folder} has no {JOURNAL}; {expected}")
    return Predictions(folder, read_object(folder / SETTINGS, "restore it, or predict anew"))


def cell_of(path: str) -> str:
    """A path as tables of CSV have it: bytes that are no valid text are escaped."""
    return path.encode(errors="backslashreplace").decode()


def _folder_of(given: Path) -> Path:
    """The folder that names are relative to: `given` is a folder, which may be gone, a pattern, a list or an image."""
    if given.is_dir():
        return given
    if has_magic(str(given)) and not given.exists():
        return split(str(given))[0]
    return given.parent if is_image(given) or given.suffix.lower() == ".txt" else given
