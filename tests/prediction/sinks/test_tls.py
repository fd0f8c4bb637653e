"""Rows over TLS reach a receiver whose certificate is trusted, and no other."""

import ssl

import pytest
import trustme

from support.brokers import MqttBroker
from support.delivering import deliver, hurried, paths, six_parts
from support.receivers import Receiver
from uniad_lightning.prediction.sources.opening import open_source


@pytest.fixture
def line(tmp_path):
    return six_parts(tmp_path / "line")


@pytest.fixture
def authority(tmp_path):
    """A factory's own, and the file of its certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    return authority, tmp_path / "authority.pem"


def sent(line, folder, sink, **more):
    return deliver(open_source(str(line)), folder, sink, **more)


def test_a_webhook_gets_rows_once_its_certificate_is_trusted(line, authority, tmp_path, monkeypatch, capfd):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("127.0.0.1").configure_cert(tls)
    with Receiver(tls=tls) as receiver:
        assert receiver.url.startswith("https://")
        with hurried(monkeypatch):
            assert sent(line, tmp_path / "out", receiver.url) == 6
        assert "CERTIFICATE_VERIFY_FAILED" in capfd.readouterr().err
        assert receiver.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority[1]))
        assert sent(line, tmp_path / "out", receiver.url, resume=True) == 0
    assert paths(receiver.taken) == [f"{i}.png" for i in range(6)]


def test_a_certificate_of_another_name_is_not_trusted(line, authority, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority[1]))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("mes.example").configure_cert(tls)
    with Receiver(tls=tls) as receiver, hurried(monkeypatch):
        assert sent(line, tmp_path / "out", receiver.url) == 6
    assert receiver.requests == []
    assert "certificate is not valid for '127.0.0.1'" in capfd.readouterr().err


def test_a_broker_gets_rows_once_its_certificate_is_trusted(line, authority, tmp_path, monkeypatch, capfd):
    authority[0].issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "broker.pem")
    with MqttBroker(certificate=str(tmp_path / "broker.pem")).opens() as broker:
        sink = f"mqtts://127.0.0.1:{broker.port}/rows"
        with hurried(monkeypatch):
            assert sent(line, tmp_path / "out", sink) == 6
        assert "CERTIFICATE_VERIFY_FAILED" in capfd.readouterr().err
        monkeypatch.setenv("SSL_CERT_FILE", str(authority[1]))
        assert sent(line, tmp_path / "out", sink, resume=True) == 0
