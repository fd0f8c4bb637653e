"""The images in the body of a request: multipart, JSON with base64, or one file as it is; limits of bytes and time."""

import asyncio
import time
from typing import Any, NamedTuple

from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from uniad_lightning.errors import one_line
from uniad_lightning.serving.schemas import JsonImages

RETRY_AFTER = {"Retry-After": "1"}  # seconds
_CLOSE = {"Connection": "close"}  # what remains of the body is not read
_FIELDS = 8  # of a form, beside its files
_KINDS = "multipart/form-data, application/json, image/* or application/octet-stream"


class Upload(NamedTuple):
    """An image file as it was sent."""

    name: str
    content: bytes


class Bodies:
    """Reads bodies of up to `max_bytes` and `max_images`, each within `seconds`.

    All that are being read or inspected may hold `total` bytes; a request beyond gets 503.
    """

    def __init__(self, *, max_bytes: int, max_images: int, seconds: float, total: int):
        self.max_bytes, self.max_images, self.seconds, self.total = max_bytes, max_images, seconds, total
        self.held = 0

    def limited(self, request: Request) -> "LimitedBody":
        """The body of `request`; a context, since its bytes count until it is left."""
        return LimitedBody(self, request)


class LimitedBody:
    """One body, while it is read and inspected."""

    def __init__(self, bodies: Bodies, request: Request):
        self._bodies = bodies
        self._request = Request(request.scope, self._receive)
        self._source: Receive = request.receive
        self._deadline = time.monotonic() + bodies.seconds
        self._taken = 0

    def __enter__(self) -> "LimitedBody":
        return self

    def __exit__(self, *_: object) -> None:
        self._bodies.held -= self._taken

    async def uploads(self) -> list[Upload]:
        """The images, at least one. Raises HTTPException for a body that cannot be used."""
        headers = self._request.headers
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise HTTPException(415, "Content-Encoding: expected none; images are compressed already", _CLOSE)
        if int(headers.get("content-length", 0)) > self._bodies.max_bytes:
            raise self._too_long()
        try:
            if kind == "multipart/form-data":
                return await self._form()
            if kind == "application/json":
                return await run_in_threadpool(_from_json, await self._request.body())
            if kind.startswith("image/") or kind == "application/octet-stream":
                return [Upload("image", await self._request.body())]
        except ClientDisconnect:
            raise HTTPException(400, "the connection was closed before the body was complete", _CLOSE) from None
        raise HTTPException(415, f"Content-Type: {kind or 'none'}; expected {_KINDS}", _CLOSE)

    async def _form(self) -> list[Upload]:
        try:
            async with self._request.form(max_files=self._bodies.max_images, max_fields=_FIELDS) as form:
                files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
                found = [Upload(file.filename or "image", await file.read()) for file in files]
        except HTTPException as error:  # of the parser, which leaves the rest unread
            raise HTTPException(error.status_code, error.detail, {**(error.headers or {}), **_CLOSE}) from None
        if not found:
            raise HTTPException(422, "no image in the form; expected a file in it, as curl -F image=@part.png sends")
        return found

    async def _receive(self) -> Message:
        try:
            message = await asyncio.wait_for(self._source(), max(self._deadline - time.monotonic(), 0))
        except asyncio.TimeoutError:
            seconds = f"{self._bodies.seconds:g}"
            raise HTTPException(408, f"the body took longer than {seconds} s (read_timeout)", _CLOSE) from None
        length = len(message.get("body", b""))
        self._taken += length
        self._bodies.held += length
        if self._taken > self._bodies.max_bytes:
            raise self._too_long()
        if self._bodies.held > self._bodies.total:
            raise HTTPException(503, "too many bytes wait for inspection; try again", {**RETRY_AFTER, **_CLOSE})
        return message

    def _too_long(self) -> HTTPException:
        limit = f"{self._bodies.max_bytes / 1e6:g}"
        return HTTPException(
            413, f"the body has more than {limit} MB; send fewer images, or raise max_megabytes", _CLOSE
        )


def _from_json(body: bytes) -> list[Upload]:
    try:
        images = JsonImages.model_validate_json(body).images
    except ValidationError as error:
        raise HTTPException(422, explain(error.errors(include_url=False, include_input=False)[0])) from None
    return [Upload(f"image {place}", content) for place, content in enumerate(images, start=1)]


def explain(error: Any) -> str:
    """One line of an error of pydantic."""
    place = ".".join(map(str, error["loc"])) or "body"
    return f"{place}: {one_line(ValueError(error['msg'].removeprefix('Value error, ')))}"
