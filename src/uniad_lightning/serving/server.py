"""Listening, one worker or several, and an end at which every accepted request is answered."""

import errno
import os
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from tempfile import TemporaryDirectory

import uvicorn
from fastapi import FastAPI
from uvicorn.config import LOGGING_CONFIG
from uvicorn.supervisors import Multiprocess

from uniad_lightning.errors import InputError, print_stdout, system_reason
from uniad_lightning.serving.app import create_app
from uniad_lightning.serving.metrics import SHARED
from uniad_lightning.serving.served_model import ServedModel
from uniad_lightning.serving.settings import Settings
from uniad_lightning.serving.workers import KEEP_ALIVE, PatientProtocol, Worker, stop_with_parent

# A client whose form is malformed is told so; the parser of forms would write it to the log, too.
_LOGGERS = {**LOGGING_CONFIG["loggers"], "python_multipart": {"level": "CRITICAL"}}
_REMEDIES = {
    errno.EADDRINUSE: "end the other program, or choose another port, such as port=0 for any free one",
    errno.EACCES: "choose a port above 1023, such as port=8000",
}
_ENDING = (signal.SIGINT, signal.SIGTERM)
_UNANSWERED = 60  # seconds after which a worker is taken for hung, and replaced


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises InputError for a checkpoint or an address that cannot be used."""
    with _listening(settings) as listener:
        if settings.workers == 1:
            _run_one(settings, listener)
        else:
            _run_many(settings, listener)
    print_stdout("stopped", flush=True)


def _run_one(settings: Settings, listener: socket.socket) -> None:
    model = ServedModel.load(settings)
    name, server = model.name, uvicorn.Server(config_of(settings, create_app(settings, model)))
    del model  # it may be replaced, and is to leave the memory then
    with _handlers_put_back():
        for number in _ENDING:  # uvicorn raises it once more when all is answered: then without effect
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        _announce(settings, name, listener)
        server.run(sockets=[listener])


def _run_many(settings: Settings, listener: socket.socket) -> None:
    # In a process of its own, as this one only starts others: a GPU would keep some memory for it.
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        name = other.submit(_try_to_load, settings).result()
    with TemporaryDirectory(prefix="uniad-metrics-") as folder, _handlers_put_back():
        os.environ[SHARED] = folder
        try:
            supervisor = Multiprocess(config_of(settings, Worker(settings)), sockets=[listener])  # handles signals
            _announce(settings, name, listener)
            supervisor.run()
        finally:
            del os.environ[SHARED]


def _try_to_load(settings: Settings) -> str:
    stop_with_parent()  # else it waits for ever for more to do, if the server is ended meanwhile
    return ServedModel.load(settings).name


def config_of(settings: Settings, app: FastAPI | Worker) -> uvicorn.Config:
    """How uvicorn serves `app`."""
    return uvicorn.Config(
        app,
        factory=isinstance(app, Worker),
        http=PatientProtocol,
        ws="none",
        workers=settings.workers,
        log_config={**LOGGING_CONFIG, "loggers": _LOGGERS},
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=round(settings.stop_timeout),
        timeout_worker_healthcheck=_UNANSWERED,
    )


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket at the address. It is taken before the checkpoint is loaded, which takes seconds."""
    try:
        kind = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((settings.host, settings.port), family=kind, backlog=2048)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "give an address of this machine, such as 127.0.0.1 or 0.0.0.0")
        reason = system_reason(error).partition(" (while")[0]  # Python adds the address
        raise InputError(
            f"host={settings.host} port={settings.port}: cannot listen there ({reason}); {remedy}"
        ) from None
    with listener:
        yield listener


def _announce(settings: Settings, name: str, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    workers = "" if settings.workers == 1 else f", {settings.workers} workers"
    print_stdout(f"serving {name} at http://{place}{workers}; Ctrl+C ends", flush=True)


@contextmanager
def _handlers_put_back() -> Iterator[None]:
    """SIGINT and SIGTERM do afterwards what they did before."""
    before = {number: signal.getsignal(number) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
