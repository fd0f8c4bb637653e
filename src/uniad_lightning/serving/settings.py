"""What `conf/serve.yaml` sets, checked before anything is loaded."""

import ipaddress
import math
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uniad_lightning.drift.monitor import check_settings
from uniad_lightning.errors import InputError
from uniad_lightning.files.user_path import expand
from uniad_lightning.inspection.given_boundary import GivenBoundary

_WHOLE = ("max_batch", "queue", "decoders", "workers")  # from 1
_POSITIVE = ("max_megabytes", "max_megapixels", "read_timeout", "stop_timeout")
_NOT_NEGATIVE = ("max_wait_ms",)
_MEGA = 1_000_000


@dataclass(frozen=True)
class Settings:
    """The keys of `conf/serve.yaml` that the server uses; explained there. Picklable, for several workers."""

    ckpt_path: str
    host: str
    port: int
    token: str | None
    device: str
    precision: str
    runtime: str
    boundary: GivenBoundary
    max_batch: int
    max_wait_ms: float
    queue: int
    max_megabytes: float
    max_megapixels: float
    decoders: int
    workers: int
    read_timeout: float
    stop_timeout: float
    reload_every: float | None
    drift_window: int
    drift_defects: float

    @property
    def max_bytes(self) -> int:
        """Of the body of a request."""
        return round(self.max_megabytes * _MEGA)

    @property
    def max_pixels(self) -> int:
        """Of one image."""
        return round(self.max_megapixels * _MEGA)


def settings_of(cfg: DictConfig) -> Settings:
    """The settings in a configuration. Raises InputError for a value that cannot be used."""
    values: dict[str, Any] = {field.name: cfg[field.name] for field in fields(Settings)}
    values["ckpt_path"] = str(expand(values["ckpt_path"]))
    if OmegaConf.is_config(values["boundary"]):
        values["boundary"] = OmegaConf.to_container(values["boundary"])
    values["host"] = str(values["host"])
    values["token"] = _checked_token(values["token"])
    for name in _WHOLE:
        if isinstance(values[name], bool) or not isinstance(values[name], int) or values[name] < 1:
            raise InputError(f"{name}={values[name]}: expected a whole number from 1")
    for name in (*_POSITIVE, *_NOT_NEGATIVE):
        _refuse_unless(_is_number(values[name]) and values[name] >= 0, name, values[name], "a number from 0")
    for name in _POSITIVE:
        _refuse_unless(values[name] > 0, name, values[name], "a number above 0")
    port, every = values["port"], values["reload_every"]
    _refuse_unless(isinstance(port, int) and 0 <= port <= 65535, "port", port, "0 (any free one) to 65535")
    _refuse_unless(every is None or (_is_number(every) and every > 0), "reload_every", every, "seconds, or null")
    check_settings(drift_window=values["drift_window"], drift_defects=values["drift_defects"])
    _refuse_open_door(values["host"], values["token"])
    return Settings(**values)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse_unless(usable: bool, name: str, value: object, expected: str) -> None:
    if not usable:
        raise InputError(f"{name}={value}: expected {expected}")


def _checked_token(token: object) -> str | None:
    """The token as text; None where it is empty, as an environment variable may be."""
    if token is not None and not isinstance(
        token, str
    ):  # 1e5 is read as 100000.0, 1_000 as 1000: nobody knows the text
        raise InputError("token: is read as a number; quote it twice, as in \"token='1e5'\", or set UNIAD_SERVE_TOKEN")
    text = token or ""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InputError("token: holds blanks or characters that an HTTP header cannot carry; use letters and digits")
    return text or None


def _refuse_open_door(host: str, token: str | None) -> None:
    if token is None and not is_loopback(host):
        raise InputError(
            f"host={host}: other machines could reach it, and there is no token; set the environment variable "
            "UNIAD_SERVE_TOKEN (openssl rand -hex 16 makes one), or listen on host=127.0.0.1"
        )
