"""Inspecting images as `uniad predict sink=` does, and what the receivers have got."""

import sqlite3
from contextlib import contextmanager

from support.stand_in import StandIn, part
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.sinks import outgoing
from uniad_lightning.prediction.sinks.opening import open_sinks
from uniad_lightning.prediction.sinks.outgoing import Outgoing


def six_parts(folder):
    """A folder of six images, of which number 4 is defective."""
    for i in range(6):
        part(folder / f"{i}.png", defect=(0, 0, 3, 3) if i == 4 else None)
    return folder


def deliver(source, folder, sink, *, resume=False, overwrite=False, detector=None):
    """How many rows are left."""
    sinks = open_sinks(sink)
    writing = PredictionWriter(folder, overlays="none", settings={}, resume=resume, overwrite=overwrite)
    with writing as writer, Outgoing(folder, sinks, resume=resume) as outgoing:
        writer.added = outgoing.added
        predict_all(detector or StandIn(), source, writer, batch_size=2, workers=2, show=False)
        return outgoing.finish()


@contextmanager
def hurried(monkeypatch, patience=0.2):
    """Calls that deliver nothing do not wait for long, in seconds; one that delivers something needs the usual time."""
    with monkeypatch.context() as patched:
        patched.setattr(outgoing, "_PATIENCE", patience)
        yield


def paths(bodies):
    return [body["path"] for body in bodies]


def count(database):
    """The rows in a file of SQLite; -1 where there is no table yet."""
    with sqlite3.connect(database) as connection:
        try:
            return connection.execute("select count(*) from predictions").fetchone()[0]
        except sqlite3.OperationalError:
            return -1
