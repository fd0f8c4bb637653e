"""Engines for the files of `uniad export`; their results are those of the checkpoint."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uniad_lightning.errors import InputError, did_you_mean, one_line, system_reason
from uniad_lightning.files import sealed
from uniad_lightning.files.onnx_parts import names_other_files
from uniad_lightning.inspection.engines.base import EngineOutput, names_of
from uniad_lightning.inspection.engines.metadata import About, read_about
from uniad_lightning.models.backbone.feature_pyramid import PIXELS_AT_ONCE
from uniad_lightning.types import Size

KEY = "uniad."  # prefix of the metadata of an .onnx file
ABOUT = "uniad.json"  # the metadata in a .pt2 file
INPUT = "image tensor(uint8)"
OUTPUTS = ("map", "score", "distance", "category", "defective")  # the last three where the checkpoint knows them
CUDA = "CUDAExecutionProvider"
IMAGE_PIXELS = 2**24  # of a batch of images at their own size, which are held as floats for a moment


class _Exported:
    """What both engines say of themselves, from the metadata of their file."""

    categories: Sequence[str]

    def _say(self, said: About, path: str) -> None:
        self.about, self.calibration, self.region = said.values, said.calibration, said.region
        self.model, self.categories, self.found = Path(path).name, said.categories, said.found
        self.white_level, self.channels = said.white_level, said.channels
        self.at_once = at_once(said.image_size, said.tiles)


class OnnxEngine(_Exported):
    """Runs the .onnx file at `path` with ONNX Runtime; safe to call from several threads.

    `device` is `auto` (a GPU where ONNX Runtime can use one), `cpu`, `cuda` or `cuda:1`. `about` is the file's
    metadata, such as `categories` (those of the training) and `precision`.

    Raises InputError without ONNX Runtime, for a file that `uniad export` did not write or that is too new, and for a
    device that is not available.
    """

    def __init__(self, path: str, device: str = "auto"):
        self.session = _open(path, device)
        try:
            metadata = self.session.get_modelmeta().custom_metadata_map
            inputs = ", ".join(f"{node.name} {node.type}" for node in self.session.get_inputs())
            self.path, self.outputs = path, [output.name for output in self.session.get_outputs()]
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: its names are damaged ({one_line(error)}); export it again") from None
        if sealed.KEY in metadata and not sealed.is_sealed(Path(path)):
            raise InputError(f"{path}: was changed after its digest was taken; take {sealed.KEY} out of its metadata")
        texts = {name.removeprefix(KEY): text for name, text in metadata.items() if name.startswith(KEY)}
        self._say(read_about(texts, path, inputs), path)
        if inputs != INPUT or not {"map", "score"} <= {*self.outputs} <= {*OUTPUTS}:
            raise InputError(
                f"{path}: its graph was changed, it has the inputs {inputs} and the outputs {', '.join(self.outputs)}; "
                f"expected {INPUT}, and {' and '.join(OUTPUTS[:2])} at least; export it again"
            )
        if CUDA in self.session.get_providers():
            self.at_once = 16

    def __call__(self, images: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        return in_batches(images, self._run, at_once=self.at_once, names=self.found)

    def _run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        try:
            found = self.session.run(self.outputs, {"image": images})
        except Exception as error:  # ONNX Runtime has a class for each reason, all below Exception
            raise InputError(f"{self.path}: ONNX Runtime cannot run it ({one_line(error)}); export it again") from None
        for name, value in zip(self.outputs, found, strict=True):
            dimensions = 3 if name == "map" else 1
            if not isinstance(value, np.ndarray) or value.ndim != dimensions or len(value) != len(images):
                raise InputError(f"{self.path}: its output {name} is none of uniad export; export it again")
        return dict(zip(self.outputs, found, strict=True))


class ProgramEngine(_Exported):
    """Runs the .pt2 file at `path` (`uniad export format=torch`) with torch on the CPU; otherwise as `OnnxEngine`."""

    def __init__(self, path: str):
        extra = {ABOUT: ""}
        _refuse_damaged(path, "a .pt2 file of uniad export format=torch")
        if not sealed.is_archive(Path(path)):  # torch would print its own traceback first
            raise InputError(
                f"{path}: cannot be read as a program of torch.export; it is of another kind, or incomplete"
            )
        try:
            self.program = torch.export.load(path, extra_files=extra).module()
        except Exception as error:  # torch raises many kinds for a damaged or foreign file
            raise InputError(f"{path}: cannot be read as a program of torch.export ({one_line(error)})") from None
        about = json.loads(extra[ABOUT] or "{}")
        self._say(read_about({name: json.dumps(value) for name, value in about.items()}, path, "unknown"), path)

    def __call__(self, images: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        return in_batches(images, self._run, at_once=self.at_once, names=self.found)

    @torch.inference_mode()
    def _run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        return {name: value.numpy() for name, value in self.program(torch.from_numpy(images)).items()}


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


def onnxruntime() -> Any:
    """The package `onnxruntime`. Raises InputError where it is not installed."""
    try:
        import onnxruntime as runtime
    except ImportError:
        raise InputError(
            "an .onnx file needs ONNX Runtime: pip install 'uniad-lightning[export]', or onnxruntime alone"
        ) from None
    return runtime


def _open(path: str, device: str) -> Any:
    _refuse_damaged(path, "an .onnx file of uniad export")
    _refuse_other_files(path)
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # which OMP_NUM_THREADS sets
    options.log_severity_level = 3
    providers = _providers(runtime.get_available_providers(), device)
    try:
        return runtime.InferenceSession(path, options, providers=providers, enable_fallback=len(providers) > 1)
    except Exception as error:  # ONNX Runtime has a class for each kind of damage, all below Exception
        raise InputError(
            f"{path}: ONNX Runtime {runtime.__version__} cannot read it; expected a file of uniad export "
            f"({one_line(error)})"
        ) from None


def _refuse_other_files(path: str) -> None:
    """Raises InputError where the weights lie in other files, which a stranger's model may name at will."""
    try:
        outside = names_other_files(memoryview(Path(path).read_bytes()))  # not mapped: a file may shrink meanwhile
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: ONNX Runtime cannot read it; expected a file of uniad export ({one_line(error)})"
        ) from None
    if outside:
        raise InputError(f"{path}: has weights in other files, which are not opened; expected a file of uniad export")


def _refuse_damaged(path: str, expected: str) -> None:
    """Raises InputError where there is no such file, and where its content has changed."""
    if not Path(path).is_file():
        problem = "is a folder" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {problem}; expected {expected}")
    try:
        damaged = sealed.is_damaged(Path(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read; {system_reason(error)}") from None
    if damaged:
        raise InputError(
            f"{path}: is damaged, its content is not what was exported; copy it again, or export it again (if "
            f"another program has changed it, take {sealed.KEY} out of its metadata)"
        )


def _providers(available: Sequence[str], device: str) -> list[Any]:
    """The providers that ONNX Runtime runs on, best first. Raises InputError for a device that is not available."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        near = did_you_mean(device, ("auto", "cpu", "cuda"))
        raise InputError(f"device={device}: unknown; expected auto, cpu, cuda or cuda:N.{near}")
    if device == "cpu" or (device == "auto" and CUDA not in available):
        return ["CPUExecutionProvider"]
    if CUDA not in available:
        raise InputError(f"device={device}: this ONNX Runtime has no CUDA; use device=cpu, or install onnxruntime-gpu")
    number = int(device.partition(":")[2] or 0)
    # TF32 has too few bits for the exact resize.
    return [(CUDA, {"device_id": number, "use_tf32": "0"}), "CPUExecutionProvider"]
