"""An exported file, run with ONNX Runtime."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from uniad_lightning.errors import InputError, did_you_mean, one_line
from uniad_lightning.inspection.engines.exported import Exported, checked, read_onnx, refuse_other_graph, threads
from uniad_lightning.inspection.engines.metadata import read_about

CUDA = "CUDAExecutionProvider"


class OnnxEngine(Exported):
    """Runs the .onnx file at `path` with ONNX Runtime; safe to call from several threads.

    `device` is `auto` (a GPU where ONNX Runtime can use one), `cpu`, `cuda` or `cuda:1`. `about` is the file's
    metadata, such as `categories` (those of the training) and `precision`.

    Raises InputError without ONNX Runtime, for a file that `uniad export` did not write or that is too new, and for a
    device that is not available.
    """

    def __init__(self, path: str, device: str = "auto"):
        texts = read_onnx(path)
        self.session = _open(path, device)
        inputs = ", ".join(f"{node.name} {node.type}" for node in self.session.get_inputs())
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.say(read_about(texts, path, inputs), path)
        refuse_other_graph(path, inputs, self.outputs)
        if CUDA in self.session.get_providers():
            self.at_once = 16

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """See `Exported`."""
        try:
            found = self.session.run(self.outputs, {"image": images})
        except Exception as error:  # ONNX Runtime has a class for each reason, all below Exception
            raise InputError(f"{self.path}: ONNX Runtime cannot run it ({one_line(error)}); export it again") from None
        return checked(self.path, dict(zip(self.outputs, found, strict=True)), len(images))


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
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3
    providers = _providers(runtime.get_available_providers(), str(device))
    try:
        return runtime.InferenceSession(path, options, providers=providers, enable_fallback=len(providers) > 1)
    except Exception as error:  # ONNX Runtime has a class for each kind of damage, all below Exception
        raise InputError(
            f"{path}: ONNX Runtime {runtime.__version__} cannot read it; expected a file of uniad export "
            f"({one_line(error)})"
        ) from None


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
