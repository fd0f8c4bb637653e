"""The sinks for the value of `sink=`."""

from collections.abc import Callable, Sequence

from uniad_lightning.errors import InputError, did_you_mean, without_user
from uniad_lightning.prediction.sinks.base import Sink
from uniad_lightning.prediction.sinks.command import Command
from uniad_lightning.prediction.sinks.mqtt import Mqtt
from uniad_lightning.prediction.sinks.sqlite_file import SqliteFile
from uniad_lightning.prediction.sinks.webhook import Webhook
from uniad_lightning.prediction.sources.address import without_secrets

_KINDS: dict[str, Callable[[str], Sink]] = {
    "sqlite": SqliteFile, "http": Webhook, "https": Webhook, "mqtt": Mqtt, "mqtts": Mqtt, "command": Command,
}  # fmt: skip
_EXPECTED = "sqlite:FILE, https://HOST/PATH, mqtt://HOST:PORT/TOPIC, command:PROGRAM, or a list of them"
_ALWAYS = "predictions.csv and predictions.jsonl are always written"


def open_sinks(given: str | Sequence[str] | None) -> list[Sink]:
    """The sinks that `given` names, one or several. Raises InputError for one that cannot be used or is named twice."""
    words = [] if given is None else [given] if isinstance(given, str) else list(given)
    sinks: list[Sink] = []
    for word in words:
        sink = _kind(word)(word)
        if sink.shown in [other.shown for other in sinks]:
            raise InputError(f"sink={sink.shown}: is there twice; name it once")
        sinks.append(sink)
    return sinks


def shown_sinks(given: str | Sequence[str] | None) -> str | list[str] | None:
    """The same without secrets."""
    if given is None or isinstance(given, str):
        return given and without_user(without_secrets(given))
    return [without_user(without_secrets(str(word))) for word in given]


def _kind(word: str) -> Callable[[str], Sink]:
    name = word.partition(":")[0] if isinstance(word, str) else ""
    if name.lower() not in _KINDS or ":" not in word:
        near = did_you_mean(name, _KINDS)
        raise InputError(f"sink={shown_sinks(str(word))}: no such sink.{near} Expected {_EXPECTED}; {_ALWAYS}")
    return _KINDS[name.lower()]
