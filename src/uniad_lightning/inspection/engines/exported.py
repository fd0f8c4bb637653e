"""What the engines for the files of `uniad export` share; their results are those of the checkpoint. Needs no torch."""

import os
import sys
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from uniad_lightning.errors import InputError, one_line, system_reason
from uniad_lightning.files import sealed
from uniad_lightning.files.onnx_parts import metadata_of, names_other_files
from uniad_lightning.inspection.engines.base import EngineOutput, names_of
from uniad_lightning.inspection.engines.metadata import About
from uniad_lightning.models.backbone.at_once import PIXELS_AT_ONCE
from uniad_lightning.types import Size

KEY = "uniad."  # prefix of the metadata of an .onnx file
INPUT = "image tensor(uint8)"
OUTPUTS = ("map", "score", "distance", "category", "defective")  # the last three where the checkpoint knows them
IMAGE_PIXELS = 2**24  # of a batch of images at their own size, which are held as floats for a moment


class Exported(ABC):
    """What the engines say of themselves, from the metadata of their file, and how they run a list of images."""

    categories: Sequence[str]

    def say(self, said: About, path: str) -> None:
        """Take over what the file at `path` says of itself."""
        self.path, self.about, self.calibration, self.region = path, said.values, said.calibration, said.region
        self.model, self.categories, self.found = Path(path).name, said.categories, said.found
        self.white_level, self.channels = said.white_level, said.channels
        self.at_once = at_once(said.image_size, said.tiles)

    @abstractmethod
    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """The outputs by name for images (B, H, W, 3) uint8 of one size."""

    def __call__(self, images: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        return in_batches(images, self.run, at_once=self.at_once, names=self.found)


def read_onnx(path: str) -> dict[str, str]:
    """The metadata of the .onnx file at `path`, texts by name.

    Raises InputError for a file that is no such message or has changed since it was written, and where its weights lie
    in other files, which a stranger's model may name at will.
    """
    refuse_damaged(path, "an .onnx file of uniad export")
    try:
        content = memoryview(Path(path).read_bytes())  # not mapped: a file may shrink meanwhile
        outside = names_other_files(content)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as an ONNX model; expected a file of uniad export ({one_line(error)})"
        ) from None
    if outside:
        raise InputError(f"{path}: has weights in other files, which are not opened; expected a file of uniad export")
    try:
        metadata = metadata_of(content)
    except ValueError as error:
        raise InputError(f"{path}: its names are damaged ({one_line(error)}); export it again") from None
    if sealed.KEY in metadata and not sealed.is_sealed(Path(path)):
        raise InputError(f"{path}: was changed after its digest was taken; take {sealed.KEY} out of its metadata")
    return {name.removeprefix(KEY): text for name, text in metadata.items() if name.startswith(KEY)}


def refuse_other_graph(path: str, inputs: str, outputs: Sequence[str]) -> None:
    """Raises InputError for a graph whose `inputs`, in words, or `outputs` are none of `uniad export`."""
    if inputs != INPUT or not {*OUTPUTS[:2]} <= {*outputs} <= {*OUTPUTS}:
        raise InputError(
            f"{path}: its graph was changed, it has the inputs {inputs} and the outputs {', '.join(outputs)}; "
            f"expected {INPUT}, and {' and '.join(OUTPUTS[:2])} at least; export it again"
        )


def checked(path: str, found: Mapping[str, np.ndarray], count: int) -> Mapping[str, np.ndarray]:
    """`found` as it is; InputError for an output that is not one array of `count` images."""
    for name, value in found.items():
        dimensions = 3 if name == "map" else 1
        if not isinstance(value, np.ndarray) or value.ndim != dimensions or len(value) != count:
            raise InputError(f"{path}: its output {name} is none of uniad export; export it again")
    return found


def threads() -> int:
    """How many threads a runtime may use: torch's number where torch is used, else OMP_NUM_THREADS; 0: all cores."""
    torch = sys.modules.get("torch")
    text = os.environ.get("OMP_NUM_THREADS", "")
    return torch.get_num_threads() if torch is not None else int(text) if text.isdecimal() else 0


def at_once(image_size: Size, tiles: int) -> int:
    """How many images a CPU runs fastest as one batch, by size (height, width) and number of the tiles of each."""
    return max(PIXELS_AT_ONCE // (image_size[0] * image_size[1] * tiles), 1)


def in_batches(
    images: Sequence[np.ndarray],
    run: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    *,
    at_once: int,
    names: Sequence[str] = (),
) -> EngineOutput:
    """The results of `run` for images (H, W, 3) uint8 of any size.

    `run` takes (B, H, W, 3) of one size, at most `at_once`, and returns `map` (B, h, w), `score` (B,) and perhaps
    `distance` (B,) and `category` (B,), a place among `names`.
    """
    results: dict[int, Mapping[str, np.ndarray]] = {}
    for places in _alike(images, at_once):
        outputs = run(np.stack([images[place] for place in places]))
        results |= {place: {name: value[i] for name, value in outputs.items()} for i, place in enumerate(places)}

    def column(name: str) -> np.ndarray:
        return np.stack([results[place][name] for place in range(len(images))])

    distances = column("distance") if "distance" in results[0] else None
    places = column("category").tolist() if "category" in results[0] else [-1] * len(images)
    return EngineOutput(column("map"), column("score"), distances, names_of(names, places))


def _alike(images: Sequence[np.ndarray], at_once: int) -> Iterator[list[int]]:
    """Positions of images of one size, in groups that are not too large."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        by_size[image.shape].append(place)
    for (height, width, _), places in by_size.items():
        count = max(min(at_once, IMAGE_PIXELS // (height * width)), 1)
        yield from (places[start : start + count] for start in range(0, len(places), count))


def refuse_damaged(path: str, expected: str) -> None:
    """Raises InputError where there is no such file, and where its content has changed."""
    if not Path(path).is_file():
        problem = "is a folder" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {problem}; expected {expected}")
    try:
        with Path(path).open("rb") as file:
            damaged = sealed.is_damaged(file)
    except OSError as error:
        raise InputError(f"{path}: cannot be read; {system_reason(error)}") from None
    if damaged:
        raise InputError(
            f"{path}: is damaged, its content is not what was exported; copy it again, or export it again (if "
            f"another program has changed it, take {sealed.KEY} out of its metadata)"
        )
