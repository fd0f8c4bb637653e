"""Rows to a topic of an MQTT broker, with quality of service 1."""

import threading
from typing import Any
from urllib.parse import unquote, urlsplit

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.prediction.sinks.base import PATIENCE, Delivery, NotTakenError
from uniad_lightning.prediction.sources.address import without_secrets

_PORTS = {"mqtt": 1883, "mqtts": 8883}


class Mqtt:
    """Publishes to `mqtt://user:password@host:port/topic`, or `mqtts` with TLS. A row is taken once the broker says so.

    Raises InputError for an address without host or topic, and without the extra `mqtt`.
    """

    def __init__(self, address: str):
        self.shown = without_secrets(address)
        try:
            parts = urlsplit(address)
            self._host, self._port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        except ValueError:
            raise InputError(f"sink={self.shown}: no valid address; expected mqtt://host:1883/topic") from None
        self._tls, self._user, self._password = parts.scheme == "mqtts", parts.username, parts.password
        self._topic = parts.path.removeprefix("/")
        if not self._host or not self._topic or set("+#?") & {*address}:
            raise InputError(f"sink={self.shown}: expected mqtt://host:1883/topic, without + # and ? in the topic")
        _library(self.shown)
        self._client: Any = None

    def deliver(self, delivery: Delivery) -> None:
        """Publish the row, over a new connection where the last one has failed."""
        try:
            if self._client is None:
                self._client = self._connected()
            message = self._client.publish(self._topic, delivery.body, qos=1)
            message.wait_for_publish(PATIENCE)
            if not message.is_published():
                raise NotTakenError("the broker does not confirm")
        except (OSError, ValueError, RuntimeError) as error:
            self.close()
            raise NotTakenError(one_line(error)) from None
        except NotTakenError:
            self.close()  # or the client would keep the message and send it beside the next try
            raise

    def close(self) -> None:
        """Leave the broker."""
        client, self._client = self._client, None
        if client is not None:
            client.disconnect()
            client.loop_stop()

    def _connected(self) -> Any:
        mqtt = _library(self.shown)
        client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        if self._user is not None:
            client.username_pw_set(unquote(self._user), unquote(self._password or ""))
        if self._tls:
            client.tls_set()
        client.connect_timeout = PATIENCE
        answered, answers = threading.Event(), []

        def on_connect(*given: Any) -> None:
            answers.append(given[3])  # its reason code
            answered.set()

        client.on_connect = on_connect
        client.connect(self._host, self._port)
        client.loop_start()
        if answered.wait(PATIENCE) and not answers[0].is_failure:
            return client
        client.disconnect()
        client.loop_stop()
        raise NotTakenError(f"the broker refuses: {answers[0]}" if answers else "the broker does not answer")


def _library(shown: str) -> Any:
    try:
        import paho.mqtt.client
    except ImportError:
        raise InputError(f"sink={shown}: needs the extra `mqtt`: pip install 'uniad-lightning[mqtt]'") from None
    return paho.mqtt.client
