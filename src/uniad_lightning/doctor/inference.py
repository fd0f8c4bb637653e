"""One inspection by a small network that is made here: whether all that is installed works together."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import uniad_lightning.training.resolvers  # noqa: F401 - registers what the YAML files compute
from uniad_lightning.data.images.tiling import Framing
from uniad_lightning.doctor.findings import BROKEN, OK, Finding
from uniad_lightning.errors import one_line
from uniad_lightning.inspection.detector import Detector
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.settings import conf_dir
from uniad_lightning.training.build import build_module
from uniad_lightning.training.method import leave_out_unused

_SIDE = 96  # pixels: the demo's network needs 12 x 12 places, of 8 pixels each


def inference(folder: Path | None = None) -> Iterator[Finding]:
    """An image inspected on each kind of device that there is, by the network of `experiment=demo`, untrained.

    `folder` is that of the YAML files, by default the package's own.
    """
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        try:
            milliseconds = _inspect(torch.device(device), folder or conf_dir())
        except Exception as error:  # whatever is wrong with any part of the installation
            found = f"fails ({type(error).__name__}: {one_line(error)})"
            yield Finding(
                BROKEN, f"inference on {device}", found, "UNIAD_DEBUG=1 shows more; install the package again"
            )
        else:
            found = f"{milliseconds:.0f} ms for an image of {_SIDE} x {_SIDE} pixels"
            yield Finding(OK, f"inference on {device}", found)


def _inspect(device: torch.device, folder: Path) -> float:
    """Milliseconds of the second of two inspections."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        cfg = compose("train", ["experiment=demo", f"data.image_size={_SIDE}"])
    leave_out_unused(cfg)
    module = build_module(cfg, announce=False)
    engine = TorchEngine(
        module=module, framing=Framing(region=None, tiles=[1, 1], overlap=0.0, ignore=None), image_size=(_SIDE, _SIDE),
        mean=module.mean, std=module.std, device=device, calibration=None, familiarity=None,
    )  # fmt: skip
    detector = Detector(engine=engine)
    image = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    detector.predict(image)
    start = time.perf_counter()
    detector.predict(image)  # which raises for a score or a map that is not finite
    return 1000 * (time.perf_counter() - start)
