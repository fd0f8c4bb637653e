"""The engine for a file: each is imported when a file needs it, as torch and Lightning take seconds."""

from collections.abc import Sequence
from pathlib import Path

from uniad_lightning.errors import InputError, did_you_mean
from uniad_lightning.inspection.engines.base import Engine

RUNTIMES = ("onnxruntime", "openvino")


def open_engine(path: Path, *, device: str, precision: str, trust: str | Sequence[str], runtime: str) -> Engine:
    """The engine that runs the checkpoint or .onnx file at `path`; arguments and errors as of `Detector.load`."""
    if runtime not in RUNTIMES:
        near = did_you_mean(str(runtime), RUNTIMES)
        raise InputError(f"runtime={runtime}: unknown; expected one of {', '.join(RUNTIMES)}.{near}")
    if path.suffix != ".onnx" or path.is_dir():
        return _of_checkpoint(path, device, precision, trust, runtime)
    if precision != "fp32":
        raise InputError(f"precision={precision}: {path} has the precision that uniad export gave it")
    if runtime == "openvino":
        from uniad_lightning.inspection.engines.openvino_runtime import OpenVinoEngine

        return OpenVinoEngine(str(path), device)
    from uniad_lightning.inspection.engines.onnx_runtime import OnnxEngine

    return OnnxEngine(str(path), device)


def _of_checkpoint(path: Path, device: str, precision: str, trust: str | Sequence[str], runtime: str) -> Engine:
    """That of a checkpoint; of a run folder, of the checkpoint whose results the run reports."""
    if runtime != "onnxruntime":
        raise InputError(
            f"runtime={runtime}: runs .onnx files, and {path} is run by torch; uniad export ckpt_path={path} makes one"
        )
    from uniad_lightning.inspection.engines.checkpoint import find_device, load_engine
    from uniad_lightning.results.run_folder import reported_checkpoint

    return load_engine(str(reported_checkpoint(path, "ckpt_path")), find_device(device), trust, precision)
