"""Rows of CSV, with texts escaped that a spreadsheet would take for formulas."""

import csv
import io
from collections.abc import Iterable
from typing import Any

_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # beginnings of a spreadsheet's formula
MARK = "'"  # put in front of a text that begins with one of these or with the mark; a reader removes one mark


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """`rows` as lines of CSV; numbers, also those in texts, and a single sign are unchanged."""
    text = io.StringIO()
    # With this line ending the writer quotes line breaks of either kind within a cell.
    writer = csv.writer(text, lineterminator="\r\n")
    for row in rows:
        writer.writerow([_plain(cell) if isinstance(cell, str) else cell for cell in row])
        text.seek(text.tell() - 2)
        text.truncate()
        text.write("\n")
    return text.getvalue()


def _plain(text: str) -> str:
    begins = text.startswith((*_FORMULA, MARK)) and len(text) > 1
    return MARK + text if begins and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
