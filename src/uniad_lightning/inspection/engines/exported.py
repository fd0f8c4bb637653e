"""Runs a file of `uniad export` with ONNX Runtime, as `detector.Engine` asks: the same answers as the checkpoint's."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uniad_lightning import __version__
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.errors import InputError, did_you_mean, one_line, system_reason
from uniad_lightning.files import sealed
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.engines.base import Seen
from uniad_lightning.models.backbone.feature_pyramid import PIXELS_AT_ONCE
from uniad_lightning.types import Box, Size

FORMAT = 2  # of the file: raised when a reader of this one would misread it; 2: has a white level
KEY = "uniad."  # before the names of what an .onnx file says about itself
ABOUT = "uniad.json"  # what a .pt2 file says about itself
CUDA = "CUDAExecutionProvider"
PICTURE_PIXELS = 2**24  # of a batch of pictures at their own size: its grey levels are held as floats for a moment


class OnnxEngine:
    """What `uniad export` wrote at `path`, run by ONNX Runtime; safe to call from several threads.

    `device` is `auto` (a GPU where ONNX Runtime can use one), `cpu`, `cuda` or `cuda:1`. `about` is what the file says
    about itself, such as `categories` (what was trained on) and `precision`.

    Raises InputError without ONNX Runtime, for a file that `uniad export` did not write or that is too new, and for a
    device that is not there.
    """

    def __init__(self, path: str, device: str = "auto"):
        self.session = _open(path, device)
        said = self.session.get_modelmeta().custom_metadata_map
        if sealed.KEY in said and not sealed.is_sealed(Path(path)):
            raise InputError(f"{path}: was changed after its digest was taken; take {sealed.KEY} out of its metadata")
        given = {name.removeprefix(KEY): text for name, text in said.items() if name.startswith(KEY)}
        inputs = ", ".join(f"{one.name} {one.type}" for one in self.session.get_inputs())
        self.about = _read_about(given, path, inputs)
        self.calibration, self.region = _calibration(self.about), _region(self.about)
        self.white_level = self.about.get("white_level", FULL_RANGE)
        self.outputs = [output.name for output in self.session.get_outputs()]
        on_gpu = CUDA in self.session.get_providers()
        self.at_once = 16 if on_gpu else at_once(self.about["image_size"], self.about["tiles"])

    def __call__(self, images: Sequence[np.ndarray]) -> Seen:
        """As `Engine` says."""
        return in_batches(images, self._run, at_once=self.at_once)

    def _run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        return dict(zip(self.outputs, self.session.run(self.outputs, {"image": images}), strict=True))


class ProgramEngine:
    """What `uniad export format=torch` wrote at `path`, run by torch on the CPU; otherwise as `OnnxEngine`."""

    def __init__(self, path: str):
        extra = {ABOUT: ""}
        _refuse_damaged(path, "a .pt2 file of uniad export format=torch")
        if not sealed.is_archive(Path(path)):  # torch would print its own traceback first
            raise InputError(f"{path}: cannot be read as a program of torch.export; it is another kind, or not whole")
        try:
            self.program = torch.export.load(path, extra_files=extra).module()
        except Exception as error:  # torch raises many kinds for a damaged or foreign file
            raise InputError(f"{path}: cannot be read as a program of torch.export ({one_line(error)})") from None
        given = json.loads(extra[ABOUT] or "{}")
        self.about = _read_about({name: json.dumps(value) for name, value in given.items()}, path, "unknown")
        self.calibration, self.region = _calibration(self.about), _region(self.about)
        self.white_level = self.about.get("white_level", FULL_RANGE)
        self.at_once = at_once(self.about["image_size"], self.about["tiles"])

    def __call__(self, images: Sequence[np.ndarray]) -> Seen:
        """As `Engine` says."""
        return in_batches(images, self._run, at_once=self.at_once)

    @torch.inference_mode()
    def _run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        return {name: value.numpy() for name, value in self.program(torch.from_numpy(images)).items()}


def at_once(image_size: Size, tiles: int) -> int:
    """Pictures that a CPU judges fastest together, by the size (height, width) and number of what is cut from each."""
    return max(PIXELS_AT_ONCE // (image_size[0] * image_size[1] * tiles), 1)


def in_batches(
    images: Sequence[np.ndarray], run: Callable[[np.ndarray], Mapping[str, np.ndarray]], *, at_once: int
) -> Seen:
    """What `run` sees in pictures (H, W, 3) uint8 of any size: it takes (B, H, W, 3) of one size, at most `at_once`.

    `run` returns `map` (B, h, w), `score` (B,) and perhaps `distance` (B,).
    """
    found: dict[int, Mapping[str, np.ndarray]] = {}
    for places in _alike(images, at_once):
        outputs = run(np.stack([images[place] for place in places]))
        found |= {place: {name: value[i] for name, value in outputs.items()} for i, place in enumerate(places)}

    def column(name: str) -> np.ndarray:
        return np.stack([found[place][name] for place in range(len(images))])

    return Seen(column("map"), column("score"), column("distance") if "distance" in found[0] else None)


def _alike(images: Sequence[np.ndarray], at_once: int) -> Iterator[list[int]]:
    """Places of pictures of one size, in groups that are not too large."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        by_size[image.shape].append(place)
    for (height, width, _), places in by_size.items():
        count = max(min(at_once, PICTURE_PIXELS // (height * width)), 1)
        yield from (places[start : start + count] for start in range(0, len(places), count))


def onnxruntime() -> Any:
    """The package. Raises InputError where it is not installed."""
    try:
        import onnxruntime as runtime
    except ImportError:
        raise InputError(
            "an .onnx file needs ONNX Runtime: pip install 'uniad-lightning[export]', or onnxruntime alone"
        ) from None
    return runtime


def _open(path: str, device: str) -> Any:
    _refuse_damaged(path, "an .onnx file of uniad export")
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # which OMP_NUM_THREADS sets
    options.log_severity_level = 3
    providers = _providers(runtime.get_available_providers(), device)
    try:
        return runtime.InferenceSession(path, options, providers=providers)
    except Exception as error:  # ONNX Runtime has a class for each kind of damage, all below Exception
        raise InputError(
            f"{path}: ONNX Runtime {runtime.__version__} cannot read it; expected a file of uniad export "
            f"({one_line(error)})"
        ) from None


def _refuse_damaged(path: str, expected: str) -> None:
    """Raises InputError where there is no such file, and where it is not what was written."""
    if not Path(path).is_file():
        found = "is a folder" if Path(path).is_dir() else "no such file"
        raise InputError(f"{path}: {found}; expected {expected}")
    try:
        damaged = sealed.is_damaged(Path(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read; {system_reason(error)}") from None
    if damaged:
        raise InputError(
            f"{path}: is damaged, its content is not what was exported; copy it anew, or export it again (of a file "
            f"that another program has changed, take {sealed.KEY} out of its metadata)"
        )


def _providers(available: Sequence[str], device: str) -> list[Any]:
    """What ONNX Runtime runs on, best first."""
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


def _read_about(given: Mapping[str, str], path: str, inputs: str) -> dict[str, Any]:
    """What a file says about itself, plain values by name; InputError where it is none of ours, or too new for us."""
    if "format" not in given:
        raise InputError(
            f"{path}: is no detector of uniad-lightning (its input: {inputs}); expected one of uniad export"
        )
    try:
        about = {name: json.loads(text) for name, text in given.items()}
        newer = about["format"] > FORMAT
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: what it says about itself is damaged ({one_line(error)}); export it again") from None
    if newer:
        raise InputError(
            f"{path}: format {about['format']}, written by uniad-lightning {about.get('version')}; this one is "
            f"{__version__} and reads format {FORMAT}; update it, or export again with this one"
        )
    missing = {"region", "calibration", "image_size", "tiles"} - about.keys()
    if missing:
        raise InputError(f"{path}: does not say its {', '.join(sorted(missing))}; export it again")
    return about


def _calibration(about: Mapping[str, Any]) -> Calibration | None:
    return None if about["calibration"] is None else Calibration.from_plain(about["calibration"])


def _region(about: Mapping[str, Any]) -> Box:
    top, left, bottom, right = about["region"]
    return top, left, bottom, right
