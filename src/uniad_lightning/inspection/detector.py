"""A trained detector for Python: `Detector.load("model.ckpt").predict("part.jpg")`."""

from collections.abc import Sequence
from os import PathLike
from typing import overload

import numpy as np
from PIL import Image
from torch import Tensor

from uniad_lightning.data.images.decoding import MAX_PIXELS, read_image, rgb_of
from uniad_lightning.data.images.deep_images import FULL_RANGE, Deep, rgb_of_deep
from uniad_lightning.data.layouts.category_names import composed
from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.files.user_path import expand
from uniad_lightning.inspection.boundary import Boundary, Calibration
from uniad_lightning.inspection.engines.base import Engine
from uniad_lightning.inspection.engines.checkpoint import find_device, load_engine
from uniad_lightning.inspection.engines.exported import OnnxEngine
from uniad_lightning.inspection.result import Inspection, refuse_not_finite

Picture = str | PathLike | Image.Image | np.ndarray | Tensor


class Detector:
    """One model for all products, ready to judge pictures; safe to use from several threads.

    `engine` is what it runs; `load` makes one of a file. A file of more than `max_pixels` pixels is refused.
    """

    def __init__(self, *, engine: Engine, max_pixels: int = MAX_PIXELS):
        self.engine = engine
        self.max_pixels = max_pixels

    @classmethod
    def load(
        cls,
        path: str | PathLike,
        *,
        device: str = "auto",
        max_pixels: int = MAX_PIXELS,
        trust: str | Sequence[str] = (),
    ) -> "Detector":
        """The detector in a checkpoint of `uniad train`, or in an `.onnx` file of `uniad export`.

        `device` is `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1`. A checkpoint trained with classes of
        your own is built with those of the packages that `trust` names. Raises InputError for a file that cannot be
        used, and for a device that is not there.
        """
        path = expand(path)
        if path.suffix == ".onnx":
            return cls(engine=OnnxEngine(str(path), device), max_pixels=max_pixels)
        return cls(engine=load_engine(str(path), find_device(device), trust), max_pixels=max_pixels)

    @property
    def calibration(self) -> Calibration | None:
        """The boundaries that `uniad calibrate` has set; None before."""
        return self.engine.calibration

    @property
    def white_level(self) -> int:
        """Which value is white in images of more than 8 bits (`data.white_level` of the training)."""
        return self.engine.white_level

    @overload
    def predict(self, image: Picture, *, product: str | None = None) -> Inspection: ...

    @overload
    def predict(
        self, image: list[Picture] | tuple[Picture, ...], *, product: str | None = None
    ) -> list[Inspection]: ...

    def predict(
        self, image: Picture | list[Picture] | tuple[Picture, ...], *, product: str | None = None
    ) -> Inspection | list[Inspection]:
        """Judge one picture, or a list of them as one batch.

        A picture is a file; a Pillow image; an array (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) with opacity, of
        uint8, uint16 or floats in [0, 1]; or a tensor (H, W), (1, H, W) or (3, H, W) of the same types. Of uint16,
        `white_level` is white, as in files of more than 8 bits. With `product` its own boundary decides, without it the
        one for all.

        Raises InputError for a picture that cannot be read, a product without boundary, and a score that is no number.
        """
        if isinstance(image, list | tuple):
            return self._judge([self._pixels(one) for one in image], product)
        return self._judge([self._pixels(image)], product)[0]

    def _judge(self, images: list[np.ndarray], product: str | None) -> list[Inspection]:
        boundary = self._boundary(product)
        if not images:
            return []
        seen = self.engine(images)
        refuse_not_finite(seen.scores, seen.maps, [f"image {i} of {len(images)}" for i in range(1, len(images) + 1)])
        return [
            Inspection(
                image=image,
                score=float(seen.scores[i]),
                scored_map=seen.maps[i],
                region=self.engine.region,
                boundary=boundary,
                familiar=None if seen.distances is None else bool(seen.distances[i] <= 1),
            )
            for i, image in enumerate(images)
        ]

    def _boundary(self, product: str | None) -> Boundary | None:
        calibration = self.calibration
        if calibration is None:
            if product is not None:
                raise InputError(
                    f"product={product}: the detector has no boundaries yet; uniad calibrate ckpt_path=... sets them"
                )
            return None
        if product is not None:
            own = {composed(name): name for name in calibration.products}
            product = own.get(composed(str(product)), str(product))
        if product is not None and product not in calibration.products:
            known = ", ".join(calibration.products) or "none"
            near = did_you_mean(product, calibration.products)
            raise InputError(f"product={product}: has no boundary of its own.{near} Products that have: {known}")
        return calibration.of(product)

    def _pixels(self, picture: Picture) -> np.ndarray:
        if isinstance(picture, str | PathLike):
            path = expand(picture)
            if path.is_dir():
                raise InputError(f"image: {picture} is a folder; give its files, or use uniad predict input={picture}")
            return read_image(path, max_pixels=self.max_pixels, white_level=self.white_level)
        if isinstance(picture, Image.Image):
            return rgb_of(picture, "image", white_level=self.white_level)
        if isinstance(picture, Tensor):
            array = (picture.float() if picture.is_floating_point() else picture).detach().cpu().numpy()
            return rgb_from_array(np.moveaxis(array, 0, -1) if array.ndim == 3 else array, self.white_level)
        return rgb_from_array(np.asarray(picture), self.white_level)


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
