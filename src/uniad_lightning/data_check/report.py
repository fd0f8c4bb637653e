"""What a check found: a table in the terminal, every finding in a CSV file, and the worst as a picture."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from uniad_lightning.data.layouts.listing import is_image
from uniad_lightning.data.records import Packed
from uniad_lightning.data_check.findings import KINDS, NOTE, SEVERITIES, Finding
from uniad_lightning.data_check.looks import Read
from uniad_lightning.errors import InputError
from uniad_lightning.files.atomic import replacing
from uniad_lightning.files.csv_text import csv_text
from uniad_lightning.results.printing import LEFT, RIGHT, print_table
from uniad_lightning.results.run_folder import write_text
from uniad_lightning.results.sheets import draw_sheet

TABLE, PICTURE = "data_check.csv", "data_check.png"
_COLUMNS = ("severity", "kind", "file", "compared_with", "found", "remedy")
_ROWS = 12  # of the picture
_SIDE = 280  # pixels
_UNREADABLE = 200  # grey


def show(findings: Sequence[Finding], root: Path) -> None:
    """Print each kind of the `findings`, worst first, with their number, one of them and what to do."""
    if not findings:
        return
    numbers = Counter(finding.kind for finding in findings)
    rows = []
    for kind, number in numbers.items():
        first = next(finding for finding in findings if finding.kind == kind)
        example = f"{_short(first.file, root)}: {first.found.removeprefix(f'{first.file}: ')}"
        rows.append([KINDS[kind].severity, kind, number, example, KINDS[kind].remedy])
    columns = [("severity", LEFT), ("kind", LEFT), ("number", RIGHT), ("such as", LEFT), ("what to do", LEFT)]
    print_table("findings", columns, rows)


def summary(findings: Iterable[Finding]) -> str:
    """The numbers of findings by severity, such as `2 errors, 1 warning, 0 notes`."""
    numbers = Counter(finding.severity for finding in findings)
    return ", ".join(f"{numbers[name]} {name}{'' if numbers[name] == 1 else 's'}" for name in SEVERITIES)


def write(folder: Path, findings: Sequence[Finding], root: Path, read: Read) -> list[Path]:
    """Write every finding into `data_check.csv`, and the worst, kinds taking turns, into `data_check.png`.

    `read` decodes an image. Returns the written files. A picture of an earlier check is removed where this one has
    none.
    """
    rows = [
        [found.severity, found.kind, str(found.file), str(found.other or ""), found.found, found.remedy]
        for found in findings
    ]
    table, picture = folder / TABLE, folder / PICTURE
    write_text(table, csv_text([_COLUMNS, *rows]))
    chosen = _in_turns([found for found in findings if _is_picture(found.file)], _ROWS)
    if not chosen:
        picture.unlink(missing_ok=True)
        return [table]
    columns = {
        "the file": [_drawn(found.file, read) for found in chosen],
        "compared with": [_drawn(found.other, read) for found in chosen],
    }
    labels = [f"{found.kind}: {_short(found.file, root)}" for found in chosen]
    with replacing(picture, ".png") as temporary:
        draw_sheet(columns, labels, heading=f"{len(chosen)} of {len(findings)} findings").save(temporary)
    return [table, picture]


def _in_turns(findings: Sequence[Finding], count: int) -> list[Finding]:
    """At most `count` of the findings: the first of each kind, then the second of each but notes; in order."""
    turns: Counter[str] = Counter()
    numbered = []
    for place, found in enumerate(findings):
        if not turns[found.kind] or found.severity != NOTE:
            numbered.append((turns[found.kind], place))
        turns[found.kind] += 1
    return [findings[place] for place in sorted(place for _, place in sorted(numbered)[:count])]


def _is_picture(file: Path | Packed) -> bool:
    return isinstance(file, Packed) or (is_image(file) and file.is_file())


def _drawn(file: Path | Packed | None, read: Read) -> np.ndarray:
    """A file as (280, 280, 3) uint8, its proportions kept, on white; grey where it cannot be read, white for none."""
    sheet = Image.new("RGB", (_SIDE, _SIDE), "white")
    if file is not None:
        try:
            image = Image.fromarray(read(file))
            image.thumbnail((_SIDE, _SIDE))
            sheet.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
        except InputError:
            sheet.paste((_UNREADABLE,) * 3, (0, 0, _SIDE, _SIDE))
    return np.array(sheet)


def _short(file: Path | Packed, root: Path) -> str:
    """The path of a file below the root of its data set."""
    path = file.file if isinstance(file, Packed) else file
    return str(file).removeprefix(f"{root}/") if path.is_relative_to(root) else str(file)
