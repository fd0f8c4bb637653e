"""What `POST /predict` takes and returns, as `/openapi.json` describes it."""

import base64
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("expected base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise ValueError("not base64; expected a file's bytes as base64, without a prefix such as data:") from None


# Pydantic's own Base64Bytes passes over characters that are none of base64.
File = Annotated[bytes, BeforeValidator(_decoded), WithJsonSchema({"type": "string", "contentEncoding": "base64"})]


class Region(BaseModel):
    """One defective region."""

    box: tuple[int, int, int, int] = Field(description="left, top, right, bottom in pixels; the last two are outside")
    area: int = Field(description="number of its pixels")
    peak: float = Field(description="the anomaly map's largest value in it")


class MapPicture(BaseModel):
    """An anomaly map at the size of its image, as a PNG of 16-bit grey."""

    png: str = Field(description="base64; 0 stands for `low`, 65535 for `high`, linear between them")
    low: float
    high: float


class ImageResult(BaseModel):
    """What the detector says of one image; the fields are those of a row of `uniad predict`."""

    name: str = Field(description="the file name that was sent, or the image's place in the request")
    score: float = Field(description="image score, larger = more anomalous")
    normalised_score: float | None = Field(description="in [0, 1], 0.5 at the boundary; null without calibration")
    decision: str = Field(description="good, defective or unknown; empty without calibration")
    category: str = Field(description="the category given, or found in the image; empty where it is not known")
    familiar: bool | None = Field(description="false: resembles no category of the training; null: not known")
    regions: list[Region]
    map: MapPicture | None = Field(default=None, description="with map=true")
    overlay: str | None = Field(default=None, description="with overlay=true: the overlay as PNG, base64")


class Answer(BaseModel):
    """The results of one request, one for each image in their order."""

    model: str = Field(description="file name and digest of the checkpoint or exported file")
    milliseconds: float = Field(description="from the first byte of the request to the answer, inside the server")
    images: list[ImageResult]


class JsonImages(BaseModel):
    """The images of a request in JSON."""

    images: list[File] = Field(min_length=1, description="files (PNG, JPEG, ...), base64")


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class Ready(BaseModel):
    """The state of a server that answers."""

    model: str
    categories: list[str]
    calibrated: bool
