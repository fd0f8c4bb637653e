"""From image files to results: a bounded queue, decoding, batches, and a new checkpoint without a pause."""

import asyncio
import base64
import gc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniad_lightning.drift.monitor import Monitor
from uniad_lightning.errors import InputError, print_stderr, print_stdout
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.prediction.rows import inspection_fields
from uniad_lightning.serving.batching import Batcher
from uniad_lightning.serving.body import Upload
from uniad_lightning.serving.metrics import Metrics
from uniad_lightning.serving.served_model import ServedModel, version_of
from uniad_lightning.serving.settings import Settings


def monitor_of(settings: Settings, model: ServedModel) -> Monitor:
    """What compares the images of `model` with those of its calibration."""
    calibration = model.detector.calibration
    return Monitor(calibration, window=settings.drift_window, defects=settings.drift_defects)


class QueueFull(Exception):
    """More images wait than `queue` allows."""


class Inspector:
    """Inspects the images of requests with one model, which `watch` replaces.

    No more than twice `max_batch` images are decoded at a time, however many wait.
    """

    def __init__(self, settings: Settings, model: ServedModel, metrics: Metrics):
        self.settings = settings
        self.model = model
        self.metrics = metrics
        self.accepted = 0  # images
        self._batcher = Batcher(
            max_batch=settings.max_batch, max_wait=settings.max_wait_ms / 1000, observe=metrics.batches.observe
        )
        self._decoders = ThreadPoolExecutor(settings.decoders, "decode")
        self._decoded = asyncio.Semaphore(2 * settings.max_batch)
        metrics.limit.set(settings.queue)

    async def run(self) -> None:
        """Inspects and watches the checkpoint, until it is cancelled."""
        watching = asyncio.create_task(self._watch())
        try:
            await self._batcher.run()
        finally:
            watching.cancel()
            self._batcher.close()
            self._decoders.shutdown(wait=False)

    async def inspect(
        self, uploads: list[Upload], *, category: str | None, with_map: bool, with_overlay: bool
    ) -> tuple[str, list[dict[str, Any]]]:
        """The name of the model, and the fields of an `ImageResult` for each image; all by one model.

        Raises QueueFull, and InputError for the first image, or the category, that cannot be used.
        """
        model = self.model
        model.detector.predict([], category=category)  # refuses a category without a boundary
        if self.accepted + len(uploads) > self.settings.queue:
            raise QueueFull
        self._accept(len(uploads))
        try:
            one_by_one = (self._one(model, upload, category, with_map, with_overlay) for upload in uploads)
            results = await asyncio.gather(*one_by_one, return_exceptions=True)
        finally:
            self._accept(-len(uploads))
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return model.name, [result for result in results if not isinstance(result, BaseException)]

    def _accept(self, count: int) -> None:
        self.accepted += count
        self.metrics.queue.set(self.accepted)

    async def _one(
        self, model: ServedModel, upload: Upload, category: str | None, with_map: bool, with_overlay: bool
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        async with self._decoded:
            image = await loop.run_in_executor(self._decoders, model.decode, upload.name, upload.content)
            try:
                inspection = await self._batcher.inspect(image, model.detector, category)
            except InputError as error:
                raise InputError(f"{upload.name}: {error}") from None
            self.metrics.count(inspection, compared=model is self.model)
            fields = await loop.run_in_executor(self._decoders, _fields, inspection, with_map, with_overlay)
        return {"name": upload.name, **fields}

    async def _watch(self) -> None:
        """Loads the checkpoint again whenever its file has changed; requests go on with the old one meanwhile."""
        path, known, replaced = Path(self.settings.ckpt_path), self.model.version, False
        while self.settings.reload_every is not None:
            await asyncio.sleep(self.settings.reload_every)
            if replaced:  # the old one, by now without requests; it holds itself by circles, and would stay long
                gc.collect()
                replaced = False
            found = version_of(path)
            if found is None or found == known:
                continue
            known, replaced = found, True
            try:
                self.model = await asyncio.to_thread(ServedModel.load, self.settings)
            except Exception as error:  # whatever it is, the old one still works
                self.metrics.reloads.labels("failed").inc()
                with suppress(OSError):  # of a terminal that is closed
                    print_stderr(f"{error}; {self.model.name} stays in use")
            else:
                known = self.model.version
                self.metrics.start_again(monitor_of(self.settings, self.model))
                self.metrics.reloads.labels("done").inc()
                with suppress(OSError):
                    print_stdout(f"{path} has changed: now {self.model.name}", flush=True)


def _fields(inspection: Inspection, with_map: bool, with_overlay: bool) -> dict[str, Any]:
    fields = inspection_fields(inspection)
    if with_map:
        fields["map"] = _map_picture(inspection.anomaly_map)
    if with_overlay:
        fields["overlay"] = _png(inspection.overlay())
    return fields


def _map_picture(heat: np.ndarray) -> dict[str, Any]:
    """The fields of a `MapPicture` of a map (H, W)."""
    low, high = float(heat.min()), float(heat.max())
    grey = np.rint((heat - low) * (65535 / max(high - low, 1e-12))).astype(np.uint16)
    return {"png": _png(Image.fromarray(grey)), "low": low, "high": high}


def _png(image: Image.Image) -> str:
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1)  # as overlays on a disk: several times faster
    return base64.b64encode(file.getvalue()).decode()
