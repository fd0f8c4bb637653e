"""Cameras and streams: the newest frame, what is dropped, a stream that is lost and comes back, and what is said."""

import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from support.cameras import Camera, jpeg
from support.children import begin, status_of
from support.paths import TESTS
from support.predicting import check_agreement, journal, predict
from support.servers import wait_until
from support.stand_in import StandIn
from uniad_lightning.errors import InputError, printable
from uniad_lightning.prediction.sources.address import address_of, is_live, without_secrets
from uniad_lightning.prediction.sources.opening import open_source
from uniad_lightning.prediction.stopping import interrupt_held_back, stopping

NAME = re.compile(r"http://127\.0\.0\.1:\d+/stream#(\d{6})@\d{8}T\d{6}\.\d{3}Z")


def numbers(rows):
    return [int(NAME.fullmatch(row["path"])[1]) for row in rows]


def said(capfd):
    """Our own lines: FFmpeg takes how loud it is from the first use of OpenCV, which was that of another test."""
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("uniad: ")]


def test_frames_are_inspected_until_the_stream_is_silent(tmp_path):
    with Camera(frames=20, frame=jpeg((255, 0, 0))) as camera:
        threading.Thread(target=lambda: (wait_until(lambda: camera.sent > 35), camera.closes())).start()
        counts = predict(camera.url, tmp_path / "out", stop_after_idle=1)
    rows = journal(tmp_path / "out")
    found = numbers(rows)
    assert found == sorted(set(found))
    assert counts.inspected == len(rows) > 0
    check_agreement(tmp_path / "out")
    times = [row["mtime_ns"] for row in rows]
    assert times == sorted(times)
    assert abs(times[-1] / 1e9 - time.time()) < 60


@pytest.mark.slow
def test_a_slow_detector_drops_frames_and_gets_the_newest(tmp_path, capfd):
    detector = StandIn(seconds=0.3)
    with Camera() as camera:
        threading.Thread(target=lambda: (wait_until(lambda: len(detector.batches) > 5), camera.closes())).start()
        counts = predict(camera.url, tmp_path / "out", detector=detector, stop_after_idle=1, show=True, batch_size=16)
    found = numbers(journal(tmp_path / "out"))
    assert set(detector.batches) == {1}
    assert counts.dropped > counts.inspected
    assert counts.dropped + counts.inspected == found[-1] + 1  # every frame up to the last is one or the other
    assert f"; {counts.dropped} more frames dropped for newer ones; " in capfd.readouterr().out
    assert not counts.incomplete


def test_every_second_frame(tmp_path):
    with Camera() as camera:
        source = open_source(camera.url, every=2)
        found = []
        for item in source.items:
            found += [] if item is None else [int(NAME.fullmatch(item.name)[1])]
            if len(found) == 5:
                source.stop()
    assert not [number for number in found if number % 2]


def test_a_stream_that_is_lost_and_returns_goes_on(tmp_path, capfd):
    with Camera() as camera:
        source = open_source(camera.url, stop_after_idle=60)
        items = filter(None, source.items)
        names = [next(items).name for _ in range(5)]
        camera.closes()
        threading.Timer(0.8, camera.opens).start()
        names += [next(items).name for _ in range(10)]  # at most one of them from before
        assert camera.connections == 3  # the first was to see whether it is there
        source.items.close()  # before the camera ends, which would be said
    found = [int(NAME.fullmatch(name)[1]) for name in names]
    assert found == sorted(set(found))
    err = said(capfd)
    assert re.fullmatch(r"uniad: http://[\d.:]+/stream: lost after \d+ frames; connecting again, at last .*", err[0])
    assert re.fullmatch(r"uniad: http://[\d.:]+/stream: is back after \d seconds", err[1])
    assert len(err) == 2


def test_one_that_does_not_return_is_said_once_and_ends(tmp_path, capfd):
    with Camera() as camera:
        source = open_source(camera.url, stop_after_idle=2)
        items = filter(None, source.items)
        next(items)
        camera.closes()
        assert all(items)
    assert len(said(capfd)) == 1


def test_nothing_is_listed_and_nobody_counts(tmp_path):
    with Camera() as camera:
        assert open_source(camera.url).total() is None


def test_user_and_password_are_sent_and_never_shown(tmp_path, capfd):
    with Camera(user="admin", password="p:w@1/2") as camera:
        url = f"http://admin:p%3Aw%401%2F2@127.0.0.1:{camera.port}/stream"
        source = open_source(url)
        item = next(filter(None, source.items))
        assert NAME.fullmatch(item.name)
        wrong = url.replace("admin", "guest")
        with pytest.raises(InputError, match=r"^input=http://127\S+/stream: is reached, but gives no video; check its"):
            open_source(wrong)
    assert not [line for line in said(capfd) if "admin" in line or "w%40" in line or "w@1" in line]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "http://u:secret@127.0.0.1:1/x",
            r"input=http://127.0.0.1:1/x: cannot be reached \(Connection refused\); check",
        ),
        ("rtsp://u:secret@127.0.0.1:1/x", r"input=rtsp://127.0.0.1:1/x: cannot be reached \(Connection refused\)"),
        ("rtsp://u:sec/ret@127.0.0.1:1/x", "input=rtsp://127.0.0.1:1/x: is no valid address; in user, password and"),
        ("rtsp://", r"input=rtsp://: names no machine; expected such as rtsp://192\."),
        ("rstp://u:secret@h/x", r"input=rstp://h/x: cannot be read. Did you mean 'rtsp'\? Streams are http://, "),
        ("camera:99", "input=camera:99: no such camera, or another program uses it; found: "),
        ("camera:left", "input=camera:left: expected the number of a camera of this machine, such as camera:0"),
    ],
)
def test_what_cannot_be_opened_is_one_line_without_secrets(word, message):
    with pytest.raises(InputError, match=f"^{message}") as caught:
        open_source(word)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "ret@" not in str(caught.value)


def test_settings_that_do_not_fit(tmp_path):
    with Camera() as camera:
        with pytest.raises(InputError, match="watch=true needs an existing folder"):
            open_source(camera.url, watch=True)
        with pytest.raises(InputError, match="^stop_after_idle=0: expected seconds above 0"):
            open_source(camera.url, stop_after_idle=0)
        with pytest.raises(
            InputError, match=r"stream: 64 x 48 pixels are 0.0 megapixels, more than the limit of 0.001"
        ):
            next(filter(None, open_source(camera.url, max_pixels=1000).items))


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://10.0.0.7/s", "rtsp://10.0.0.7/s"),
        ("rtsp://u:p@10.0.0.7:554/s", "rtsp://10.0.0.7:554/s"),
        ("rtsp://u@h/s", "rtsp://h/s"),
        ("rtsp://u:p@ss:w/o?r&d@h/s", "rtsp://h/s"),
        ("http://h/s@2x", "http://h/s@2x"),
        ("http://h/s?channel=1&user=me&pwd=1234&x", "http://h/s?channel=1&user=***&pwd=***&***"),
        ("photos/a@b", "photos/a@b"),
    ],
)
def test_secrets_of_an_address(address, shown):
    assert without_secrets(address) == shown
    assert without_secrets(shown) == shown


def test_secrets_in_any_line_on_the_terminal():
    said = printable("a rtsp://u:p@ss/w@h/s, http://h/a@b, git+https://t@h; 'rtsp://u:p@h'")
    assert said == "a rtsp://***@h/s, http://h/a@b, git+https://***@h; 'rtsp://***@h'"


def test_a_file_may_have_the_name_of_a_camera(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_live("camera:1")
    assert address_of("camera:01").shown == "camera:1"
    (tmp_path / "camera:1").mkdir()
    assert not is_live("camera:1")
    assert not is_live("photos")


def stop_and_interrupt():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what the background of a shell ignores
    stopped = []
    with stopping(lambda: stopped.append(1)):
        signal.raise_signal(signal.SIGTERM)
        assert stopped == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def stop_within_a_step_and_interrupt():
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stopped = []
    with stopping(lambda: stopped.append(1)):
        with interrupt_held_back():
            signal.raise_signal(signal.SIGTERM)
        assert stopped == [1]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("signals", [stop_and_interrupt, stop_within_a_step_and_interrupt])
def test_the_first_signal_stops_and_the_second_interrupts(signals):
    assert status_of(begin(signals)) == 0  # a process of its own, which a signal may end


STREAMING = """
import sys
import time
from pathlib import Path
from support.predicting import of
from support.stand_in import StandIn
from uniad_lightning.prediction.files import PredictionWriter
from uniad_lightning.prediction.pipeline import predict_all
from uniad_lightning.prediction.sources.opening import open_source
from uniad_lightning.prediction.stopping import stopping

class Slow(StandIn):
    def predict(self, images, category=None):
        if len(self.batches) == 2:
            Path(sys.argv[3]).touch()  # the third is being inspected
            time.sleep(5)
        return super().predict(images, category)


source = open_source(sys.argv[1])
with PredictionWriter(Path(sys.argv[2]), overlays="none", settings={}) as writer, stopping(source.stop):
    predict_all(Slow(), source, writer, batch_size=3, workers=2)
print("ended")
"""


@pytest.mark.slow
def test_a_signal_ends_it_after_the_frame_that_is_inspected(tmp_path):
    third = tmp_path / "third"
    with Camera() as camera:
        words = [sys.executable, "-c", STREAMING, camera.url, str(tmp_path / "out"), str(third)]
        process = subprocess.Popen(words, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wait_until(third.exists)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert out.startswith("3 images: 3 good; ")
    assert out.endswith("ended\n")
    assert len(journal(tmp_path / "out")) == 3
