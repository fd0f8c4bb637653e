"""Rows reach every sink at least once and in order, whatever the receiver and the call do; nothing waits for them."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from support.delivering import count, deliver, hurried, paths, six_parts
from support.paths import TESTS
from support.predicting import journal, of
from support.receivers import Receiver
from support.servers import wait_until
from support.stand_in import StandIn, part
from uniad_lightning.errors import InputError, TemporaryError
from uniad_lightning.prediction.sinks import outgoing as outgoing_module
from uniad_lightning.prediction.sinks.opening import open_sinks
from uniad_lightning.prediction.sinks.positions import POSITIONS
from uniad_lightning.prediction.sources.items import Item, broken_item
from uniad_lightning.prediction.sources.opening import open_source


@pytest.fixture
def line(tmp_path):
    return six_parts(tmp_path / "line")


def test_every_row_is_posted_once_with_its_id(line, tmp_path, monkeypatch):
    monkeypatch.setenv("UNIAD_SINK_TOKEN", "s3cret")
    with Receiver() as receiver:
        assert deliver(open_source(str(line)), tmp_path / "out", receiver.url) == 0
    assert [{k: v for k, v in body.items() if k != "id"} for body in receiver.taken] == journal(tmp_path / "out")
    assert len({*receiver.ids}) == 6
    for headers, body in receiver.requests:
        assert headers["Idempotency-Key"] == body["id"]
        assert headers["Authorization"] == "Bearer s3cret"
        assert headers["Content-Type"] == "application/json"
    assert b"s3cret" not in b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file())


def test_no_token_no_header(line, tmp_path, monkeypatch):
    monkeypatch.delenv("UNIAD_SINK_TOKEN", raising=False)
    with Receiver() as receiver:
        deliver(open_source(str(line)), tmp_path / "out", receiver.url)
    assert "Authorization" not in receiver.requests[0][0]


def test_a_receiver_that_answers_500_twice_gets_the_row_again_with_the_same_id(line, tmp_path, capfd):
    with Receiver(answers=[204, 500, 500]) as receiver:
        assert deliver(open_source(str(line)), tmp_path / "out", receiver.url) == 0
    assert paths(receiver.taken) == [f"{i}.png" for i in range(6)]
    tried = [body["id"] for _, body in receiver.requests]
    assert tried[1] == tried[2] == tried[3]
    assert len(tried) == 8
    assert capfd.readouterr().err.splitlines() == [
        f"uniad: {receiver.url}: takes no row (answers 500 Internal Server Error); kept, and tried again",
        f"uniad: {receiver.url}: takes rows again",
    ]


def test_a_receiver_that_is_down_holds_up_nobody_and_gets_all_when_it_is_up(line, tmp_path, capfd):
    database = tmp_path / "rows.db"
    with Receiver(up=False) as receiver:

        def detector_done():
            wait_until(lambda: database.exists() and count(database) == 6)  # the other sink waits for nobody
            assert receiver.taken == []
            receiver.opens()

        opener = threading.Thread(target=detector_done)
        opener.start()
        assert deliver(open_source(str(line)), tmp_path / "out", [receiver.url, f"sqlite:{database}"]) == 0
        opener.join()
        assert paths(receiver.taken) == [f"{i}.png" for i in range(6)]
    assert "takes no row ([Errno 111] Connection refused)" in capfd.readouterr().err


def test_what_is_left_is_said_and_delivered_by_the_next_call(line, tmp_path, capfd, monkeypatch):
    with Receiver(answers=[204, 204, *[503] * 100]) as receiver:
        with hurried(monkeypatch, patience=2):  # two rows are taken
            assert deliver(open_source(str(line)), tmp_path / "out", receiver.url) == 4
        err = capfd.readouterr().err.splitlines()
        assert err[-1] == (
            f"uniad: warning: {receiver.url}: 4 rows not delivered (answers 503 Service Unavailable); kept, and "
            "delivered by a call with resume=true"
        )
        receiver.answers.clear()
        assert deliver(open_source(str(line)), tmp_path / "out", receiver.url, resume=True) == 0
        assert paths(receiver.taken) == [f"{i}.png" for i in range(6)]
        assert len({*receiver.ids}) == 6
        assert deliver(open_source(str(line)), tmp_path / "out", receiver.url, resume=True) == 0
        assert len(receiver.taken) == 6
        assert not capfd.readouterr().err


def test_a_new_sink_gets_all_rows_and_a_new_start_new_ids(line, tmp_path):
    with Receiver() as first, Receiver() as second:
        deliver(open_source(str(line)), tmp_path / "out", first.url)
        deliver(open_source(str(line)), tmp_path / "out", [first.url, second.url], resume=True)
        assert (len(first.taken), second.ids) == (6, first.ids)
        deliver(open_source(str(line)), tmp_path / "out", first.url, overwrite=True)
        assert len({*first.ids}) == 12


def test_rows_that_a_resumed_call_tries_again(tmp_path, line):
    """Failures that may pass are taken out of the journal: what comes behind them is still delivered."""
    broken = broken_item("gone.png", "the share is away", TemporaryError)
    good = [item for item in open_source(str(line)).items]
    with Receiver() as receiver:
        deliver(of([good[0], broken]), tmp_path / "out", receiver.url)
        deliver(of([good[0], good[1]._replace(name="gone.png"), good[2]]), tmp_path / "out", receiver.url, resume=True)
        assert paths(receiver.taken) == ["0.png", "gone.png", "gone.png", "2.png"]
        assert [bool(body["error"]) for body in receiver.taken] == [False, True, False, False]
        assert len({*receiver.ids}) == 4


def test_an_error_of_the_source_does_not_wait_for_a_receiver(tmp_path, line):
    def items():
        yield from open_source(str(line)).items
        raise InputError("the camera is gone")

    with Receiver(up=False) as receiver, pytest.raises(InputError, match="the camera is gone"):
        deliver(of(items()), tmp_path / "out", receiver.url)
    assert journal(tmp_path / "out")


def test_damaged_positions_are_one_line(line, tmp_path):
    with Receiver() as receiver:
        deliver(open_source(str(line)), tmp_path / "out", receiver.url)
        (tmp_path / "out" / POSITIONS).write_text('{"run": 3}')
        with pytest.raises(InputError, match=f"{POSITIONS}: is damaged; restore it"):
            deliver(open_source(str(line)), tmp_path / "out", receiver.url, resume=True)


def test_names_that_are_no_text_are_delivered(tmp_path, line):
    odd = os.fsdecode(b"\xff\x1b.png")
    items = [Item(odd, item.read) for item in list(open_source(str(line)).items)[:1]]
    with Receiver() as receiver:
        deliver(of(items), tmp_path / "out", [receiver.url, f"sqlite:{tmp_path / 'rows.db'}"])
    assert paths(receiver.taken) == [odd]
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        assert connection.execute("select path from predictions").fetchall() == [("\\udcff\x1b.png",)]


KILLED = """
import sys
from pathlib import Path
from support.stand_in import StandIn
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.sinks.opening import open_sinks
from uniad_lightning.prediction.sinks.outgoing import Outgoing
from uniad_lightning.prediction.sources.opening import open_source

line, out, *sinks = sys.argv[1:]
with PredictionWriter(Path(out), overlays="none", settings={}) as writer:
    with Outgoing(Path(out), open_sinks(sinks), resume=False) as outgoing:
        writer.added = outgoing.added
        predict_all(StandIn(seconds=0.5), open_source(line), writer, batch_size=1, workers=2, show=False)
"""


@pytest.mark.slow
def test_a_killed_call_loses_no_row(tmp_path):
    for i in range(40):
        part(tmp_path / f"line/{i:02d}.png")
    database, out = tmp_path / "rows.db", tmp_path / "out"
    with Receiver(answers=[204] * 5 + [500] * 1000) as receiver:
        sinks = [receiver.url, f"sqlite:{database}"]
        words = [sys.executable, "-c", KILLED, str(tmp_path / "line"), str(out), *sinks]
        process = subprocess.Popen(words, cwd=TESTS)
        written = out / "predictions.jsonl"
        wait_until(lambda: written.exists() and written.read_bytes().count(b"\n") >= 15 and len(receiver.taken) == 5)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert len(receiver.taken) == 5
        receiver.answers.clear()
        assert deliver(open_source(str(tmp_path / "line")), out, sinks, resume=True) == 0
    rows = journal(out)
    assert paths(rows) == [f"{i:02d}.png" for i in range(40)]
    assert {*paths(receiver.taken)} == {*paths(rows)}
    assert len({*receiver.ids}) == 40  # some may have come twice, with the same id
    with sqlite3.connect(database) as connection:
        found = connection.execute("select id, path from predictions order by path").fetchall()
    assert found == sorted({(body["id"], body["path"]) for body in receiver.taken}, key=lambda pair: pair[1])


def test_a_file_of_sqlite_is_read_while_it_is_written(line, tmp_path):
    database, seen = tmp_path / "rows.db", []

    class Looking(StandIn):
        def predict(self, images, category=None):
            found = super().predict(images, category)
            seen.append(count(database))
            return found

    deliver(open_source(str(line)), tmp_path / "out", f"sqlite:{database}", detector=Looking(seconds=0.2))
    assert seen[0] == 0
    assert 0 < seen[-1] < 6
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        rows = [dict(row) for row in connection.execute("select * from predictions order by path")]
    for row, written in zip(rows, journal(tmp_path / "out"), strict=True):
        row.pop("id")
        assert {**row, "regions": json.loads(row["regions"]), "familiar": bool(row["familiar"])} == written


def test_a_new_file_of_sqlite_that_two_runs_open_at_once_is_waited_for(tmp_path):
    database = tmp_path / "rows.db"
    other = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
    other.execute("begin immediate")
    timer = threading.Timer(0.3, other.execute, ["commit"])
    timer.start()
    (sink,) = open_sinks(f"sqlite:{database}")
    timer.join()
    sink.close()
    other.close()
    assert count(database) == 0


def test_a_program_gets_each_row_on_its_standard_input(line, tmp_path):
    got = tmp_path / "got"
    program = tmp_path / "gate"
    program.write_text(
        f"#!/bin/sh\n[ -e {tmp_path}/ready ] || {{ touch {tmp_path}/ready; echo busy >&2; exit 3; }}\n"
        f'cat >> {got}\necho "$1" >> {got}.words\n'
    )
    program.chmod(0o755)
    assert deliver(open_source(str(line)), tmp_path / "out", f"command:{program} 'a; b'") == 0
    bodies = [json.loads(text) for text in got.read_text().splitlines()]
    assert paths(bodies) == [f"{i}.png" for i in range(6)]
    assert (tmp_path / "got.words").read_text() == "a; b\n" * 6


def test_a_program_that_hangs_is_killed_with_its_children(line, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("uniad_lightning.prediction.sinks.command.PATIENCE", 0.3)
    monkeypatch.setattr(outgoing_module, "_PATIENCE", 0.5)
    program = tmp_path / "gate"
    program.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {tmp_path}/child\nwait\n")
    program.chmod(0o755)
    assert deliver(open_source(str(line)), tmp_path / "out", f"command:{program}") == 6
    assert "(has not ended within 0.3 seconds)" in capfd.readouterr().err
    child = int((tmp_path / "child").read_text())
    wait_until(lambda: not running(child))


def running(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("kafka://u:secret@h/x", r"sink=kafka://h/x: no such sink. Expected sqlite:FILE, https://HOST/PATH, mqtt"),
        ("sqlight:rows.db", r"sink=sqlight:rows.db: no such sink. Did you mean 'sqlite'\?"),
        ("csv", r"sink=csv: no such sink. .*; predictions.csv and predictions.jsonl are always written"),
        ("sqlite:", r"sink=sqlite:.*: expected sqlite:FILE in an existing folder"),
        ("sqlite:/nowhere/rows.db", "sink=sqlite:/nowhere/rows.db: expected sqlite:FILE in an existing folder; make"),
        ("https://", "sink=https://: names no machine; expected such as https://host:8443/path"),
        ("http://u:secret@h:x/", "sink=http://h:x/: no valid address"),
        ("mqtt://u:secret@h:1883", r"sink=mqtt://h:1883: expected mqtt://host:1883/topic, without \+ # and \?"),
        ("mqtt://h/a/#", r"sink=mqtt://h/a/#: expected mqtt://host:1883/topic, without \+ # and \?"),
        ("mqtt://h:x/a", "sink=mqtt://h:x/a: no valid address; expected mqtt://host:1883/topic"),
        ("command:no-such-program --url http://u:secret@h", r"sink=command:no-such-program --url http://\*\*\*@h: no"),
        ("command:'", "sink=command:': cannot be divided into words"),
        (["command:cat", "command:cat"], "sink=command:cat: is there twice"),
        (3, "sink=3: no such sink"),
    ],
)  # fmt: skip
def test_a_sink_that_cannot_be_used_is_one_line(word, message):
    with pytest.raises(InputError, match=f"^{message}") as caught:
        open_sinks([word] if isinstance(word, int) else word)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_no_database_is_one_line(tmp_path):
    (tmp_path / "rows.db").write_text("path,score\n" * 200)
    with pytest.raises(InputError, match=r"rows.db: cannot be used \(file is not a database\); give a new file"):
        open_sinks(f"sqlite:{tmp_path / 'rows.db'}")
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("create table predictions (a)")
    with pytest.raises(InputError, match=r"other.db: cannot be used \(no such column: id\)"):
        open_sinks(f"sqlite:{tmp_path / 'other.db'}")
