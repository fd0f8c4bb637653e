"""One model that finds defects on every product: UniAD in PyTorch Lightning, composed by Hydra."""

import os
from typing import Any

# Without it, importing ONNX Runtime leaves a device's number below the home folder and reports to its maker.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
__all__ = ["Detector"]


def __getattr__(name: str) -> Any:
    # Torch takes seconds to import, and `uniad --help` passes through here.
    if name == "Detector":
        from uniad_lightning.inspection.detector import Detector

        return Detector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
