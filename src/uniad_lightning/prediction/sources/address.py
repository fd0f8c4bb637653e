"""The address of a camera or a stream: what OpenCV opens, and what may be shown of it."""

import os
import re
from typing import NamedTuple

from uniad_lightning.errors import InputError, did_you_mean

_CAMERA = re.compile(r"camera:(.*)", re.IGNORECASE | re.DOTALL)
_STREAM = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)
PORTS = {"http": 80, "https": 443, "rtmp": 1935, "rtsp": 554, "rtsps": 322, "tcp": 0, "udp": 0}
EXPECTED = "camera:0, or a stream (rtsp://..., http://...)"
_NUMBER = re.compile("[0-9]{1,2}")  # of a channel; a password is longer


class Address(NamedTuple):
    """A camera or a stream.

    Attributes:
        opened: the number of a camera of this machine, or the address of a stream.
        shown: the same without user, password and values of a query: for rows, messages and files.
    """

    opened: int | str
    shown: str


def address_of(text: str) -> Address | None:
    """The camera or stream that `text` names; None where it is neither.

    Raises InputError for a camera without a number, and a scheme that is not read.
    """
    camera, stream = _CAMERA.fullmatch(text), _STREAM.fullmatch(text)
    if camera:
        if not camera[1].isascii() or not camera[1].isdecimal():
            raise InputError(f"input={text}: expected the number of a camera of this machine, such as camera:0")
        return Address(int(camera[1]), f"camera:{int(camera[1])}")
    if not stream:
        return None
    shown = without_secrets(text)
    if stream[1].lower() not in PORTS:
        near = did_you_mean(stream[1].lower(), PORTS)
        raise InputError(
            f"input={shown}: cannot be read.{near} Streams are {', '.join(f'{name}://' for name in PORTS)}"
        )
    if not stream[2].strip("/"):
        raise InputError(f"input={shown}: names no machine; expected such as {stream[1]}://192.168.0.7/stream")
    return Address(text, shown)


def is_live(text: str) -> bool:
    """Whether `text` names a camera or stream, and no file. Raises InputError as `address_of`."""
    return not os.path.lexists(text) and address_of(text) is not None


def without_secrets(text: str) -> str:
    """An address without user and password, and without the values in its query but for short numbers.

    A password may hold any character, also those that an address has to escape. Any other text is left as it is.
    """
    address = _STREAM.fullmatch(text)
    if not address:
        return text
    scheme, rest = address[1], address[2]
    before, at, after = rest.rpartition("@")
    if at and (":" in before.partition("/")[0] or "/" not in before):
        rest = after
    path, mark, query = rest.partition("?")
    return f"{scheme}://{path}{mark}{'&'.join(map(_without_value, query.split('&')))}"


def _without_value(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return pair if not pair or _NUMBER.fullmatch(pair) else "***"
    return pair if _NUMBER.fullmatch(value) else f"{name}=***"
