"""The routes of the server, and who may use them."""

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uniad_lightning import __version__
from uniad_lightning.errors import InputError, TemporaryError, printable
from uniad_lightning.serving.body import RETRY_AFTER, Bodies, explain
from uniad_lightning.serving.inspector import Inspector, QueueFull, monitor_of
from uniad_lightning.serving.metrics import Metrics
from uniad_lightning.serving.schemas import Answer, JsonImages, Problem, Ready
from uniad_lightning.serving.served_model import ServedModel
from uniad_lightning.serving.settings import Settings

_PAGE = Path(__file__).with_name("page.html")
_OWN = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"
)
_BODIES = 4  # of the largest size at a time
_FILE = {"schema": {"type": "string", "format": "binary"}}
_FORM = {"type": "object", "properties": {"image": {"type": "array", "items": _FILE["schema"]}}, "required": ["image"]}
_BODY = {
    "required": True,
    "description": "one or many image files",
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/json": {"schema": JsonImages.model_json_schema()},
        "image/*": _FILE,
        "application/octet-stream": _FILE,
    },
}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "not HTTP as it should be, or too many parts"},
    401: {"model": Problem, "description": "no token, or another"},
    408: {"model": Problem, "description": "the body did not come in time"},
    413: {"model": Problem, "description": "too many bytes or images"},
    415: {"model": Problem, "description": "another content type"},
    422: {"model": Problem, "description": "an image that cannot be read or is too large, or an unknown category"},
    503: {"model": Problem, "description": "the queue is full: try again after Retry-After seconds"},
}


def create_app(settings: Settings, model: ServedModel) -> FastAPI:
    """The application that serves `model`; its routes are documented at `/openapi.json`."""
    metrics = Metrics(monitor_of(settings, model))
    app = FastAPI(title="uniad serve", version=__version__, docs_url=None, redoc_url=None, lifespan=_inspecting)
    app.state.metrics = metrics
    app.state.inspector = Inspector(settings, model, metrics)  # nothing else holds the model, which it replaces
    app.state.bodies = Bodies(
        max_bytes=settings.max_bytes, max_images=settings.queue, seconds=settings.read_timeout,
        total=_BODIES * settings.max_bytes,
    )  # fmt: skip
    app.include_router(_ROUTES)
    app.include_router(_GUARDED, dependencies=[Depends(_token_check(settings.token))])
    app.add_exception_handler(RequestValidationError, _one_line)
    app.add_middleware(Counted, metrics=metrics)
    if settings.token is None:  # else any page in a browser of this machine could ask, by a name that leads here
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1", "[::1]", settings.host])
    return app


@asynccontextmanager
async def _inspecting(app: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(app.state.inspector.run())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _token_check(token: str | None) -> Any:
    given_by = HTTPBearer(auto_error=False, description="the token of the server, where it has one")

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(given_by)]) -> None:
        if token is not None and not hmac.compare_digest((given.credentials if given else "").encode(), token.encode()):
            wanted = {"WWW-Authenticate": "Bearer"}
            raise HTTPException(
                401, "expected the header 'Authorization: Bearer TOKEN' with the server's token", wanted
            )

    return check


async def _one_line(_: Request, error: Exception) -> JSONResponse:
    """FastAPI's errors of query parameters, in the form of all others."""
    found = error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": (), "msg": str(error)}
    return JSONResponse({"detail": explain(found)}, 422)


class Counted:
    """Counts the answers of `/predict` by status, and their seconds."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        if scope["type"] != "http" or scope["path"] != "/predict":
            return await self.app(scope, receive, send)
        began = time.perf_counter()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.requests.labels(message["status"]).inc()
                self.metrics.seconds.observe(time.perf_counter() - began)
            await send(message)

        return await self.app(scope, receive, counting)


_ROUTES, _GUARDED = APIRouter(), APIRouter()


@_GUARDED.post(
    "/predict",
    response_model=Answer,
    responses=_PROBLEMS,
    openapi_extra={"requestBody": _BODY},
)
async def predict(request: Request, category: str | None = None, map: bool = False, overlay: bool = False) -> Response:
    """Inspect one or many images.

    `category` says whose boundary decides, as in `uniad predict`; `map` and `overlay` ask for pictures.
    """
    began = time.perf_counter()
    inspector: Inspector = request.app.state.inspector
    try:
        with request.app.state.bodies.limited(request) as body:
            uploads = await body.uploads()
            if len(uploads) > inspector.settings.queue:
                raise HTTPException(
                    413, f"{len(uploads)} images in a request; expected at most queue={inspector.settings.queue}"
                )
            model, images = await inspector.inspect(uploads, category=category, with_map=map, with_overlay=overlay)
    except QueueFull:
        detail = f"{inspector.accepted} images wait, of queue={inspector.settings.queue}; try again"
        raise HTTPException(503, detail, RETRY_AFTER) from None
    except TemporaryError as error:
        raise HTTPException(503, printable(str(error)), RETRY_AFTER) from None
    except InputError as error:
        raise HTTPException(422, printable(str(error))) from None
    milliseconds = round(1000 * (time.perf_counter() - began), 1)
    answer = Answer.model_validate({"model": model, "milliseconds": milliseconds, "images": images})
    # In a thread, as pictures make it long; not by FastAPI, which would check it once more.
    text = await run_in_threadpool(answer.model_dump_json, exclude_unset=True)
    return Response(text, media_type="application/json")


@_GUARDED.get("/metrics", response_class=Response)
def metrics(request: Request) -> Response:
    """Counters for Prometheus, of all workers."""
    return Response(request.app.state.metrics.text(), media_type=CONTENT_TYPE_LATEST)


@_ROUTES.get("/healthz")
async def alive() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": "ok"}


@_ROUTES.get("/readyz", responses={503: {"model": Problem}})
async def ready(request: Request) -> Ready:
    """Whether an image sent now would be accepted, and by which model it would be inspected."""
    inspector: Inspector = request.app.state.inspector
    if inspector.accepted >= inspector.settings.queue:
        raise HTTPException(503, "the queue is full", RETRY_AFTER)
    detector = inspector.model.detector
    return Ready(
        model=inspector.model.name,
        categories=list(detector.engine.categories),
        calibrated=detector.calibration is not None,
    )


@_ROUTES.get("/", include_in_schema=False)
def page() -> HTMLResponse:
    """The page to drop images on."""
    return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers={"Content-Security-Policy": _OWN})
