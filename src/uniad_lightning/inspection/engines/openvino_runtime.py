"""An exported file, run with OpenVINO."""

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np

from uniad_lightning.errors import InputError, did_you_mean, one_line
from uniad_lightning.inspection.engines.exported import Exported, checked, read_onnx, refuse_other_graph, threads
from uniad_lightning.inspection.engines.metadata import read_about
from uniad_lightning.types import Size

_SIZES = 4  # of images, whose compiled networks are kept
_TYPES = {"u8": "tensor(uint8)"}  # ONNX's name of OpenVINO's type


class OpenVinoEngine(Exported):
    """Runs the .onnx file at `path` with OpenVINO; safe to call from several threads, otherwise as `OnnxEngine`.

    `device` is `auto` (an Intel GPU where there is one, else the CPU) or a device of OpenVINO, such as `cpu`, `GPU.1`
    or `NPU`. Arithmetic is float32 also where OpenVINO would choose less by itself. A detector of tiles or of a region
    is compiled anew for each size of images, and the last `_SIZES` are kept.

    Raises InputError without OpenVINO, and as `OnnxEngine`.
    """

    def __init__(self, path: str, device: str = "auto"):
        texts = read_onnx(path)
        runtime = openvino()
        core = runtime.Core()
        device = _device(core.available_devices, device)
        try:
            self.network = core.read_model(path)
            inputs = ", ".join(_described(value) for value in self.network.inputs)
            self.outputs = [output.any_name for output in self.network.outputs]
        except Exception as error:  # RuntimeError for each kind of damage, and for outputs without a name
            raise _unreadable(runtime.__version__.partition("-")[0], path, error) from None
        self.say(read_about(texts, path, inputs), path)
        refuse_other_graph(path, inputs, self.outputs)
        self._runtime, self._core, self._device, self._lock = runtime, core, device, Lock()
        self._compiled = lru_cache(_SIZES)(self._compile)
        self._framed = self.about["tiles"] > 1 or list(self.region) != [0, 0, 1, 1]
        if not self._framed:
            self._compiled(None)

    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """See `Exported`."""
        with self._lock:  # or two threads would compile the same
            compiled = self._compiled(images.shape[1:3] if self._framed else None)
        try:
            request = compiled.create_infer_request()  # a new one, since one serves one thread at a time
            request.infer({"image": images})
            found = {name: request.get_tensor(name).data.copy() for name in self.outputs}  # it owns their memory
        except Exception as error:
            raise InputError(f"{self.path}: OpenVINO cannot run it ({one_line(error)}); export it again") from None
        return checked(self.path, found, len(images))

    def _compile(self, size: Size | None) -> Any:
        """The network for images of `size` (height, width), None: of any.

        OpenVINO computes float64 in float32 but for constants, and the edges of tiles and regions, which are fractions
        of an image rounded to pixels, need float64: they are constants where the size is fixed.
        """
        try:
            network = self.network
            if size is not None:
                network = network.clone()
                network.reshape(self._runtime.PartialShape([-1, *size, 3]))
            return self._core.compile_model(network, self._device, _properties(self._device))
        except Exception as error:
            version = self._runtime.__version__.partition("-")[0]
            raise _unreadable(version, self.path, error) from None


def openvino() -> Any:
    """The package `openvino`. Raises InputError where it is not installed."""
    # Importing OpenVINO would leave a number of this user below the home folder and report to its maker.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino as runtime
    except ImportError:
        raise InputError("runtime=openvino: openvino not installed; pip install 'uniad-lightning[openvino]'") from None
    return runtime


def _described(value: Any) -> str:
    """An input in the words of `exported.INPUT`."""
    kind = value.get_element_type().get_type_name()
    return f"{value.any_name} {_TYPES.get(kind, kind)}"


def _device(available: Sequence[str], name: str) -> str:
    """OpenVINO's name of the device that the user calls `name`. Raises InputError for one that is not there."""
    if name == "auto":
        return "GPU" if any(one.partition(".")[0] == "GPU" for one in available) else "CPU"
    own = str(name).upper().replace(":", ".")
    known = {*available, *(one.partition(".")[0] for one in available)}
    if own not in known:
        near = did_you_mean(own, known)
        raise InputError(
            f"device={name}: not a device that OpenVINO finds here; expected auto, or {', '.join(sorted(known))}.{near}"
        )
    return own


def _properties(device: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    if device == "CPU":
        properties["INFERENCE_NUM_THREADS"] = threads()  # 0: all cores
    return properties


def _unreadable(version: str, path: str, error: Exception) -> InputError:
    return InputError(f"{path}: OpenVINO {version} cannot read it; expected a file of uniad export ({one_line(error)})")
