"""`uniad predict` at the line: a camera in, rows out to receivers, and no secret in anything it leaves."""

import json
import sqlite3
import threading

import pytest

from support.cameras import Camera
from support.delivering import hurried
from support.predicting import journal
from support.receivers import Receiver
from support.servers import wait_until
from support.settings import SMALL


@pytest.fixture(scope="module")
def checkpoint(tree, tmp_path_factory):
    from uniad_lightning.command_line.cli import run_command

    run = tmp_path_factory.mktemp("line") / "run"
    assert run_command("train", [*SMALL, "trainer.max_epochs=1", f"data.root={tree}", f"output_dir={run}"]) == 0
    return run / "checkpoints/last.ckpt"


@pytest.mark.slow
def test_a_camera_in_and_rows_out_without_secrets(checkpoint, uniad, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with Camera(user="admin", password="s3cret/@", pause=0.05) as camera, Receiver() as receiver:
        monkeypatch.setenv("CAMERA", f"http://admin:s3cret%2F%40@127.0.0.1:{camera.port}/stream?key=s3cret&channel=2")
        sinks = f"[sqlite:{tmp_path}/rows.db,http://me:s3cret@127.0.0.1:{receiver.port}/rows?key=s3cret]"
        words = [f"ckpt_path={checkpoint}", "device=cpu", "input=${oc.env:CAMERA}", f"output_dir={out}"]

        def ends():
            wait_until(lambda: len(receiver.taken) > 3)
            camera.closes()

        for more in ([], ["resume=true"]):
            receiver.taken.clear()
            ending = threading.Thread(target=ends)
            ending.start()
            status, said, err = uniad("predict", *words, f"sink={sinks}", "stop_after_idle=1", "report=true", *more)
            ending.join()
            assert status == 0, err
            assert f"reading http://127.0.0.1:{camera.port}/stream?key=***&channel=2; Ctrl+C ends" in said
            assert "s3cret" not in said + err
            camera.opens()
        rows = journal(out)
        assert receiver.requests[0][0]["Authorization"].startswith("Basic ")
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        assert connection.execute("select count(*), count(distinct path) from predictions").fetchone() == (
            len(rows),
            len(rows),
        )
    assert len({body["id"] for _, body in receiver.requests}) == len(rows)
    left = [path for path in out.rglob("*") if path.is_file()]
    assert {"predictions.sinks.json", "config.yaml", "predictions.json", "report.html"} <= {path.name for path in left}
    for path in left:
        content = path.read_bytes()
        assert b"s3cret" not in content, path
        assert b"admin" not in content, path


def test_rows_left_are_said_with_status_1_and_delivered_by_the_next_call(
    checkpoint, tree, uniad, tmp_path, monkeypatch
):
    with Receiver(up=False) as receiver:
        words = [f"ckpt_path={checkpoint}", "device=cpu", f"input={tree}/bottle/test", f"output_dir={tmp_path}/out"]
        with hurried(monkeypatch):
            status, _, err = uniad("predict", *words, f"sink={receiver.url}")
        assert status == 1
        assert f"uniad: warning: {receiver.url}: 5 rows not delivered ([Errno 111] Connection refused); kept" in err
        receiver.opens()
        status, said, err = uniad("predict", *words, f"sink={receiver.url}", "resume=true")
        assert status == 0, err
        assert "5 more done before" in said
    assert [{k: v for k, v in body.items() if k != "id"} for body in receiver.taken] == journal(tmp_path / "out")


def test_mistakes_are_one_line_and_leave_nothing(checkpoint, uniad, tmp_path):
    words = [f"ckpt_path={checkpoint}", "device=cpu", f"output_dir={tmp_path}/out"]
    for more, message in (
        (["input=rtsp://me:s3cret@127.0.0.1:1/x"], "uniad: input=rtsp://127.0.0.1:1/x: cannot be reached (Connection"),
        (["input=camera:99"], "uniad: input=camera:99: no such camera, or another program uses it; found: "),
        (
            [f"input={tmp_path}", "sink=kafka://me:s3cret@h/x"],
            "uniad: sink=kafka://h/x: no such sink. Expected",
        ),
        ([f"input={tmp_path}", "sink=[csv]"], "uniad: sink=csv: no such sink."),
    ):
        status, _, err = uniad("predict", *words, *more)
        assert status == 2
        (line,) = err.splitlines()
        assert line.startswith(message)
        assert "s3cret" not in line
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_a_program_with_words_of_its_own(checkpoint, tree, uniad, tmp_path):
    words = [f"ckpt_path={checkpoint}", "device=cpu", f"input={tree}/bottle/test", f"output_dir={tmp_path}/out"]
    assert uniad("predict", *words, f"sink=command:tee -a {tmp_path}/got")[0] == 0
    got = [json.loads(line) for line in (tmp_path / "got").read_text().splitlines()]
    assert [body["path"] for body in got] == [row["path"] for row in journal(tmp_path / "out")]
