"""A trained detector for Python: `Detector.load("model.ckpt").predict("part.jpg")`."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, Union, overload

import numpy as np
from PIL import Image

from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.decoding import MAX_PIXELS, read_image, rgb_of
from uniad_lightning.data.images.deep_images import FULL_RANGE, Deep, rgb_of_deep
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.user_path import expand
from uniad_lightning.inspection.boundary import Boundary
from uniad_lightning.inspection.engines.base import Engine
from uniad_lightning.inspection.engines.opening import open_engine
from uniad_lightning.inspection.given_boundary import GivenBoundary, with_given
from uniad_lightning.inspection.result import Inspection, refuse_not_finite

if TYPE_CHECKING:  # torch takes seconds to import, and an exported file is inspected without it
    from torch import Tensor

ImageInput = Union[str, PathLike, Image.Image, np.ndarray, "Tensor"]


class Detector:
    """One model for all categories, ready to inspect images; safe to use from several threads.

    `engine` runs the model; `load` makes one from a file. A file of more than `max_pixels` pixels is refused.
    `calibration` are the boundaries: those that `uniad calibrate` set, moved to the scores of `boundary` as
    `with_given` says; None before.
    """

    def __init__(self, *, engine: Engine, max_pixels: int = MAX_PIXELS, boundary: GivenBoundary = None):
        self.engine = engine
        self.max_pixels = max_pixels
        self.calibration = with_given(engine.calibration, boundary, categories=engine.categories)

    @classmethod
    def load(
        cls,
        path: str | PathLike,
        *,
        device: str = "auto",
        precision: str = "fp32",
        max_pixels: int = MAX_PIXELS,
        trust: str | Sequence[str] = (),
        runtime: str = "onnxruntime",
        boundary: GivenBoundary = None,
    ) -> "Detector":
        """The detector in a checkpoint of `uniad train`, or in an `.onnx` file of `uniad export`.

        Of a run folder it is the checkpoint whose results the run reports. An `.onnx` file is run by `runtime`,
        `onnxruntime` or `openvino`, without torch, Lightning, Hydra or timm being imported.
        `device` is `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1`, `precision` of a checkpoint's
        inference `fp32`, `bf16` or `fp16`. A checkpoint with classes of your own is loaded where `trust` names their
        packages. `boundary`, a score or one for each category, takes the place of the boundaries in the file. Raises
        InputError for a file that cannot be used, and for a device that is not available.
        """
        engine = open_engine(expand(path), device=device, precision=precision, trust=trust, runtime=runtime)
        return cls(engine=engine, max_pixels=max_pixels, boundary=boundary)

    def __repr__(self) -> str:
        categories = ", ".join(self.engine.categories) or "unknown"
        return f"Detector(model: {self.engine.model}; categories: {categories}; boundary: {self._boundaries()})"

    def _boundaries(self) -> str:
        """Those that decide, in words."""
        if self.calibration is None:
            return "not set, see uniad calibrate"
        scores = [own.score for own in self.calibration.categories.values()]
        if not self.calibration.by_category or not scores:
            return f"{self.calibration.overall.score:.4g} ({self.calibration.method})"
        return f"each category's own, {min(scores):.4g} to {max(scores):.4g} ({self.calibration.method})"

    @property
    def white_level(self) -> int:
        """The value that is white in images of more than 8 bits (`data.white_level` of the training)."""
        return self.engine.white_level

    @property
    def channels(self) -> Channels | None:
        """Which channels of a file are red, green and blue (`data.channels` of the training); None: as it says."""
        return self.engine.channels

    def read(self, path: Path) -> np.ndarray:
        """An image file as the training saw it, (H, W, 3) uint8 RGB. Raises InputError for one that cannot be read."""
        return read_image(path, max_pixels=self.max_pixels, white_level=self.white_level, channels=self.channels)

    @overload
    def predict(self, image: ImageInput, *, category: str | None = None) -> Inspection: ...

    @overload
    def predict(
        self, image: list[ImageInput] | tuple[ImageInput, ...], *, category: str | None = None
    ) -> list[Inspection]: ...

    def predict(
        self, image: ImageInput | list[ImageInput] | tuple[ImageInput, ...], *, category: str | None = None
    ) -> Inspection | list[Inspection]:
        """Inspect one image, or a list of images as one batch.

        An image is a file; a Pillow image; an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) with opacity, of
        uint8, uint16 or floats in [0, 1]; or a tensor (H, W), (1, H, W) or (3, H, W) of the same types. Of uint16,
        `white_level` is white, as in files of more than 8 bits. `channels` are taken from files alone. With `category`
        the boundary of that category decides, without it that of the category found in the image, or the one for all,
        as the calibration has it.

        Raises InputError for an image that cannot be read, a category without boundary, and a score that is not finite.
        """
        if isinstance(image, list | tuple):
            return self._inspect([self._pixels(item) for item in image], category)
        return self._inspect([self._pixels(image)], category)[0]

    def stream(self, images: Iterable[ImageInput], *, category: str | None = None) -> Iterator[Inspection]:
        """Inspect images as they are asked for, such as the frames of a camera: the next one is taken only then.

        What `images` raises is passed on. Raises InputError as `predict`, for a category without boundary at once.
        """
        self._boundary(category)
        return (self.predict(image, category=category) for image in images)

    def _inspect(self, images: list[np.ndarray], category: str | None) -> list[Inspection]:
        given = self._boundary(category)
        if not images:
            return []
        output = self.engine(images)
        refuse_not_finite(
            output.scores, output.maps, [f"image {i} of {len(images)}" for i in range(1, len(images) + 1)]
        )
        return [
            Inspection(
                image=image,
                score=float(output.scores[i]),
                scored_map=output.maps[i],
                region=self.engine.region,
                category=output.categories[i] if category is None else category,
                boundary=given or (self.calibration and self.calibration.deciding(output.categories[i])),
                familiar=None if output.distances is None else bool(output.distances[i] <= 1),
            )
            for i, image in enumerate(images)
        ]

    def _boundary(self, category: str | None) -> Boundary | None:
        """That of a given `category`; None without one."""
        calibration = self.calibration
        if calibration is None:
            if category is not None:
                raise InputError(
                    f"category={category}: the detector has no boundaries yet; uniad calibrate ckpt_path=... sets them"
                )
            return None
        if category is not None:
            own = {composed(name): name for name in calibration.categories}
            category = own.get(composed(str(category)), str(category))
        if category is not None and category not in calibration.categories:
            known = ", ".join(calibration.categories) or "none"
            near = did_you_mean(category, calibration.categories)
            raise InputError(f"category={category}: has no boundary of its own.{near} Categories that have: {known}")
        return None if category is None else calibration.of(category)

    def _pixels(self, image: ImageInput) -> np.ndarray:
        if isinstance(image, str | PathLike):
            path = expand(image)
            if path.is_dir():
                raise InputError(f"image: {image} is a folder; give its files, or use uniad predict input={image}")
            return self.read(path)
        if isinstance(image, Image.Image):
            return rgb_of(image, "image", white_level=self.white_level)
        if _is_tensor(image):
            array = (image.float() if image.is_floating_point() else image).detach().cpu().numpy()
            return rgb_from_array(np.moveaxis(array, 0, -1) if array.ndim == 3 else array, self.white_level)
        return rgb_from_array(np.asarray(image), self.white_level)


def _is_tensor(image: Any) -> "TypeGuard[Tensor]":
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    return torch is not None and isinstance(image, torch.Tensor)


def rgb_from_array(array: np.ndarray, white_level: int = FULL_RANGE) -> np.ndarray:
    """An array as `Detector.predict` takes it, as (H, W, 3) uint8. Raises InputError for any other."""
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(
            f"image: an array of shape {array.shape}; expected (height, width), or with 1, 3 or 4 channels behind"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.uint16:
        single = array.ndim == 3 and array.shape[2] == 1
        return rgb_of_deep(Deep(array[..., 0] if single else array), "image", white_level)
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also when a value is NaN
            raise InputError(f"image: floats from {array.min()} to {array.max()}; expected 0 to 1")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"image: an array of {array.dtype}; expected uint8, uint16, or floats in [0, 1]")
    if array.ndim == 3 and array.shape[2] == 3:
        return np.ascontiguousarray(array)
    if array.ndim == 3 and array.shape[2] == 4:
        return rgb_of(Image.fromarray(np.ascontiguousarray(array)), "image")
    return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
