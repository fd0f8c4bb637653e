"""Small pictures of a run's images, and their anomaly maps: the detector runs on each of them once."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image

from uniad_lightning.errors import InputError, message_of
from uniad_lightning.heatmap import Scale
from uniad_lightning.inspection.detector import Detector, ImageInput
from uniad_lightning.inspection.result import Inspection
from uniad_lightning.progress_bar import progress_bar
from uniad_lightning.report.content import Reader, ReportedRun
from uniad_lightning.types import Box

THUMBNAIL = 256  # pixels of the longer side; 2,000 of them with their maps fit into 40 MB
_MAP = 64  # of a map, of which one cell is an eighth of that on the usual grids
_QUALITY, _FULL_QUALITY = 70, 90
_BATCH = 16


KeepFull = Callable[[int, bytes], str]  # takes an image's place and a JPEG of it, gives its address for the page


class Picture(NamedTuple):
    """What the page shows of one image.

    Attributes:
        thumbnail: WebP of at most `THUMBNAIL` pixels.
        full: address of a JPEG of the image's own size, as `KeepFull` gives it; empty where it was not asked for.
        mask: PNG, white = defective; None without a mask.
        heat: its anomaly map (h, w) float32, at most `_MAP` pixels, averaged; None where no detector ran.
        region: what part of the image the map covers.
        size: (width, height) of the image.
    """

    thumbnail: bytes
    full: str
    mask: bytes | None
    heat: np.ndarray | None
    region: Box
    size: tuple[int, int]


class Drawn(NamedTuple):
    """The pictures of a run by the place of their image, and what was learned on the way.

    Attributes:
        pictures: by place in the run's images.
        failed: why an image has no picture, by place.
        found: the category found in an image and whether it is familiar, by place; of a detector that can tell.
        largest: the largest difference between a score found now and that of the run's table, in shares of the
            range of all scores.
    """

    pictures: dict[int, Picture]
    failed: dict[int, str]
    found: dict[int, tuple[str, bool]]
    largest: float


def draw(run: ReportedRun, places: Iterable[int], detector: Detector | None, keep_full: KeepFull | None) -> Drawn:
    """Decode the images of `run` at `places`, once each, and let the `detector` make their maps.

    An image that cannot be read is `failed`. `keep_full` gets each image at its own size, where that is asked for.
    """
    wanted = frozenset(places)
    drawn = Drawn({}, {}, {}, 0.0)
    known = [image.score for image in run.images if image.score is not None]
    extent = (max(known) - min(known) if known else 0.0) or 1.0
    label = f"pictures{' and maps' if detector else ''} of {run.folder.name}"
    with ThreadPoolExecutor(2) as readers, progress_bar(label, total=len(wanted)) as bar:
        for batch in _batches(run.readers(wanted)):
            read = list(readers.map(lambda pair: _read(pair[1]), batch))
            images = [pixels for pixels, _, error in read if not error]
            inspections = iter(_inspect(detector, images))
            for (place, _), (pixels, mask, error) in zip(batch, read, strict=True):
                if error:
                    drawn.failed[place] = error
                    continue
                inspection = next(inspections)
                full = "" if keep_full is None else keep_full(place, _jpeg(pixels))
                drawn.pictures[place] = _picture(pixels, mask, inspection, full)
                if inspection is not None:
                    score = run.images[place].score
                    off = 0.0 if score is None else abs(inspection.score - score) / extent
                    drawn = drawn._replace(largest=max(drawn.largest, off))
                    if inspection.familiar is not None:
                        drawn.found[place] = (inspection.category or "", inspection.familiar)
            bar.update(len(batch))
    return drawn


def _batches(pairs: Iterable[tuple[int, Reader]]) -> Iterator[list[tuple[int, Reader]]]:
    remaining = iter(pairs)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _read(reader: Reader) -> tuple[np.ndarray, np.ndarray | None, str]:
    try:
        return *reader(), ""
    except InputError as error:
        return np.zeros((1, 1, 3), np.uint8), None, message_of(error)


def _inspect(detector: Detector | None, images: Sequence[np.ndarray]) -> Sequence[Inspection | None]:
    if detector is None or not images:
        return [None] * len(images)
    return detector.predict(list[ImageInput](images))


def _picture(pixels: np.ndarray, mask: np.ndarray | None, inspection: Inspection | None, full: str) -> Picture:
    image = Image.fromarray(pixels)
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR)
    return Picture(
        encode(small, "WEBP", quality=_QUALITY),
        full,
        None if mask is None else _small_mask(mask, small.size),
        None if inspection is None else _small_map(inspection.scored_map),
        (0.0, 0.0, 1.0, 1.0) if inspection is None else inspection.region,
        image.size,
    )


def _jpeg(pixels: np.ndarray) -> bytes:
    return encode(Image.fromarray(pixels), "JPEG", quality=_FULL_QUALITY)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file of an image, of a `kind` that Pillow writes."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _small_mask(mask: np.ndarray, size: tuple[int, int]) -> bytes:
    """A mask (H, W) at `size` (width, height), of one bit: a pixel that holds any of the defect is white."""
    share = Image.fromarray(mask.astype(np.uint8) * 255).convert("F").resize(size, Image.Resampling.BOX)
    return encode(Image.fromarray(np.asarray(share) > 0), "PNG", optimize=True)


def _small_map(heat: np.ndarray) -> np.ndarray:
    height, width = heat.shape
    shrink = min(1.0, _MAP / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    return np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BOX))


def scales(run: ReportedRun, pictures: dict[int, Picture]) -> dict[str, Scale]:
    """For each category one scale of the colours of all its maps, as in the sheets of `uniad evaluate`."""
    by_category: dict[str, list[np.ndarray]] = {}
    for place, picture in pictures.items():
        if picture.heat is not None:
            by_category.setdefault(run.images[place].category, []).append(picture.heat)
    limits = {name: run.deciding(name) for name in by_category}
    return {
        name: Scale.of(maps, limit and limit.pixel)
        for (name, limit), maps in zip(limits.items(), by_category.values(), strict=True)
    }


def levels(heat: np.ndarray, scale: Scale) -> bytes:
    """A map as a PNG of 256 levels from `scale.low` to `scale.high`."""
    steps = np.clip((heat - scale.low) * (255 / max(scale.high - scale.low, 1e-12)), 0, 255)
    return encode(Image.fromarray(steps.astype(np.uint8)), "PNG", optimize=True)
