"""Rows to a real MQTT broker: one that is there, refuses, or comes later."""

import sys
import threading

import pytest

from support.brokers import MqttBroker, Subscriber
from support.delivering import count, deliver, hurried, paths, six_parts
from support.servers import wait_until
from uniad_lightning.errors import InputError
from uniad_lightning.prediction.sinks.opening import open_sinks
from uniad_lightning.prediction.sources.opening import open_source


@pytest.fixture
def line(tmp_path):
    return six_parts(tmp_path / "line")


def test_every_row_is_published_with_quality_of_service_1(line, tmp_path):
    with MqttBroker().opens() as broker, Subscriber(broker.port, "line/3") as subscriber:
        assert deliver(open_source(str(line)), tmp_path / "out", f"mqtt://127.0.0.1:{broker.port}/line/3") == 0
        wait_until(lambda: len(subscriber.got) == 6, seconds=20)
    assert {qos for qos, _ in subscriber.got} == {1}
    assert paths(body for _, body in subscriber.got) == [f"{i}.png" for i in range(6)]
    assert len({body["id"] for _, body in subscriber.got}) == 6


def test_user_and_password(line, tmp_path, monkeypatch, capfd):
    with MqttBroker(users={"line": "p@ss/w"}, folder=tmp_path).opens() as broker:
        host = f"127.0.0.1:{broker.port}/rows"
        with hurried(monkeypatch, patience=2):
            assert deliver(open_source(str(line)), tmp_path / "out", f"mqtt://line:wrong@{host}") == 6
        err = capfd.readouterr().err
        assert f"uniad: mqtt://{host}: takes no row (the broker refuses: " in err
        assert "wrong" not in err
        with Subscriber(broker.port, "rows", "line", "p@ss/w") as subscriber:
            sink = f"mqtt://line:p%40ss%2Fw@{host}"
            assert deliver(open_source(str(line)), tmp_path / "out", sink, resume=True) == 0
            wait_until(lambda: len(subscriber.got) == 6, seconds=20)


def test_a_broker_that_comes_later(line, tmp_path):
    database = tmp_path / "rows.db"
    with MqttBroker() as broker:

        def comes():
            wait_until(lambda: database.exists() and count(database) == 6)
            broker.opens()

        coming = threading.Thread(target=comes)
        coming.start()
        sinks = [f"sqlite:{database}", f"mqtt://127.0.0.1:{broker.port}/rows"]
        assert deliver(open_source(str(line)), tmp_path / "out", sinks) == 0
        coming.join()


def test_without_the_extra_it_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(InputError, match=r"^sink=mqtt://h/rows: needs the extra `mqtt`: pip install 'uniad-lightning"):
        open_sinks("mqtt://u:secret@h/rows")
