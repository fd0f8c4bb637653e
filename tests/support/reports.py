"""Reading what `uniad report` writes: the data inside the page, and its table."""

import base64
import csv
import io
import json
import re

import numpy as np
from PIL import Image


def data_of(page):
    """The data that the page's program reads."""
    (text,) = re.findall(r'<script type="application/json" id="data">(.*)</script>', page.read_text(encoding="utf-8"))
    return json.loads(text)


def table_of(page):
    """The rows of `report.csv` beside the page."""
    with page.with_name("report.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, strict=True))


def picture(text):
    """The pixels of a picture in the page."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def counts(rows, boundary):
    """(false alarms, misses) of rows of `report.csv`; `boundary` gives the score for a category."""
    above = [(row["label"], float(row["score"]) > boundary(row["category"])) for row in rows]
    return above.count(("good", True)), above.count(("defective", False))
