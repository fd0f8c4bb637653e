"""A real MQTT broker (amqtt) in a thread of this process, and a subscriber of it."""

import asyncio
import json
import logging
import socket
import threading

import paho.mqtt.client as mqtt
from amqtt.broker import Broker

from support.servers import wait_until


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class MqttBroker:
    """Listens on `port` from `opens` to `closes`. With `users`, {name: password}, nobody else may connect.

    With `certificate`, a file of it and of its key, over TLS.
    """

    def __init__(self, users=None, folder=None, certificate=None):
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        self.port = free_port()
        self.tls = {} if certificate is None else {"ssl": True, "certfile": certificate, "keyfile": certificate}
        self.plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": not users}}
        if users:
            from pwdlib import PasswordHash

            lines = [f"{name}:{PasswordHash.recommended().hash(password)}" for name, password in users.items()]
            (folder / "passwords").write_text("\n".join(lines))
            self.plugins["amqtt.plugins.authentication.FileAuthPlugin"] = {"password_file": str(folder / "passwords")}
        self.thread = None

    def opens(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self._do(self._start())
        return self

    async def _start(self):
        bind = {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}", **self.tls}}
        self.broker = Broker({"listeners": bind, "plugins": self.plugins}, loop=self.loop)
        await self.broker.start()

    def closes(self):
        if self.thread is not None:
            self._do(self.broker.shutdown())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.thread = None

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closes()


class Subscriber:
    """`got` is what came to a topic."""

    def __init__(self, port, topic, user=None, password=None):
        self.got = []
        ready = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        if user:
            self.client.username_pw_set(user, password)
        self.client.on_message = lambda _, __, message: self.got.append((message.qos, json.loads(message.payload)))
        self.client.on_subscribe = lambda *_: ready.set()
        self.client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        wait_until(ready.is_set, seconds=20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.disconnect()
        self.client.loop_stop()
