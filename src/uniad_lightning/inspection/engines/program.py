"""An exported file of `uniad export format=torch`, run with torch."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from uniad_lightning.errors import InputError, one_line
from uniad_lightning.files import sealed
from uniad_lightning.inspection.engines.exported import Exported, refuse_damaged
from uniad_lightning.inspection.engines.metadata import read_about

ABOUT = "uniad.json"  # the metadata in a .pt2 file


class ProgramEngine(Exported):
    """Runs the .pt2 file at `path` with torch on the CPU; otherwise as `OnnxEngine`."""

    def __init__(self, path: str):
        extra = {ABOUT: ""}
        refuse_damaged(path, "a .pt2 file of uniad export format=torch")
        if not sealed.is_archive(Path(path)):  # torch would print its own traceback first
            raise InputError(
                f"{path}: cannot be read as a program of torch.export; it is of another kind, or incomplete"
            )
        try:
            self.program = torch.export.load(path, extra_files=extra).module()
        except Exception as error:  # torch raises many kinds for a damaged or foreign file
            raise InputError(f"{path}: cannot be read as a program of torch.export ({one_line(error)})") from None
        about = json.loads(extra[ABOUT] or "{}")
        self.say(read_about({name: json.dumps(value) for name, value in about.items()}, path, "unknown"), path)

    @torch.inference_mode()
    def run(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """See `Exported`."""
        return {name: value.numpy() for name, value in self.program(torch.from_numpy(images)).items()}
