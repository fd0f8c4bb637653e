"""Inspecting images as `uniad predict` does, and reading the two files it writes."""

import csv
import json

from support.stand_in import StandIn
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.sources.items import Source
from uniad_lightning.prediction.sources.opening import open_source


def predict(
    word,
    folder,
    *,
    detector=None,
    resume=False,
    overwrite=False,
    overlays="defective",
    overlays_size=None,
    settings=None,
    **more,
):
    """All of `uniad predict` but the command line."""
    names = {"batch_size", "workers", "category", "show", "each"}
    source = open_source(str(word), without=folder, **{k: v for k, v in more.items() if k not in names})
    loop = {"batch_size": 3, "workers": 2, "show": False, **{k: v for k, v in more.items() if k in names}}
    with PredictionWriter(
        folder,
        overlays=overlays,
        overlays_size=overlays_size,
        settings=settings or {},
        resume=resume,
        overwrite=overwrite,
    ) as writer:
        return predict_all(detector or StandIn(), source, writer, **loop)


def of(items):
    return Source(iter(items), lambda: None)


def journal(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_bytes().splitlines()]


def table(folder):
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def check_agreement(folder):
    """That both files say the same; returns the names."""
    rows, cells = journal(folder), table(folder)
    assert len(rows) == len(cells)
    for row, cell in zip(rows, cells, strict=True):
        for name in ("path", "decision", "overlay", "mask", "error"):
            assert cell[name] == row[name].encode(errors="backslashreplace").decode()  # of names that are no text
        for name in ("score", "normalised_score", "milliseconds"):
            assert cell[name] == ("" if row[name] is None else str(row[name]))
        assert cell["familiar"] == {None: "", True: "true", False: "false"}[row["familiar"]]
        if row["score"] is None:
            assert (cell["num_regions"], cell["regions"]) == ("", "")
        else:
            assert json.loads(cell["regions"]) == row["regions"]
            assert int(cell["num_regions"]) == len(row["regions"])
    return [row["path"] for row in rows]
