"""A checkpoint, run with torch."""

from collections.abc import Sequence

import numpy as np
import torch

from uniad_lightning.data.dataset import normalise
from uniad_lightning.data.images.channels import Channels
from uniad_lightning.data.images.deep_images import FULL_RANGE
from uniad_lightning.data.images.tiling import Framing
from uniad_lightning.data.images.white_level import as_number
from uniad_lightning.detectors.base import AnomalyModule, Output
from uniad_lightning.errors import InputError
from uniad_lightning.inspection.boundary import Calibration
from uniad_lightning.inspection.engines.base import EngineOutput, names_of
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.models.backbone.batch_norm_folding import GATE
from uniad_lightning.precision import at_precision
from uniad_lightning.training.build import as_saved, build_saved, build_saved_data
from uniad_lightning.types import Batch, Size


class TorchEngine:
    """Runs `module` on the tiles of `framing`, each at `image_size` (height, width), on `device`.

    `white_level` is the white of images of more than 8 bits and `channels` are those taken, as in the training;
    `precision` one of `precision.INFERENCE`. `model` and `categories` as in `Engine`.
    """

    def __init__(
        self,
        *,
        module: AnomalyModule,
        framing: Framing,
        image_size: Size,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
        calibration: Calibration | None,
        familiarity: Familiarity | None,
        white_level: int = FULL_RANGE,
        channels: Channels | None = None,
        precision: str = "fp32",
        model: str = "unknown",
        categories: Sequence[str] = (),
    ):
        self.model, self.categories = model, categories
        self.module = module.eval().to(device)
        self.framing = framing
        self.region = framing.region
        self.white_level, self.channels = white_level, channels
        self.image_size = image_size
        self.map_size = framing.map_size(image_size)
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        self.device = device
        self.calibration = calibration
        self.familiarity = familiarity
        self.precision = precision
        module.prepare()

    @torch.inference_mode()
    def inspect(self, images: Sequence[np.ndarray]) -> Output:
        """Inspect images, each (H, W, 3) uint8 RGB of any size."""
        with GATE.running(), at_precision(self.device, self.precision):
            return self._inspect(images)

    def _inspect(self, images: Sequence[np.ndarray]) -> Output:
        tiles = [tile for image in images for tile in self.framing.tiles_of(image, self.image_size)]
        pixels = normalise(tiles, self.mean, self.std).to(self.device)  # (B * T, 3, H, W)
        if self.framing.count > 1:
            pixels = pixels.unflatten(0, (len(images), self.framing.count))
        return self.module.inspect(Batch(image=pixels), framing=self.framing, size=self.map_size)

    def __call__(self, images: Sequence[np.ndarray]) -> EngineOutput:
        """See `Engine`."""
        output = self.inspect(images)
        distances, found = None, names_of((), [-1] * len(images))
        if self.familiarity is not None and output.descriptor is not None:
            distance, places = self.familiarity.nearest(output.descriptor)
            distances = (distance / self.familiarity.boundary).numpy()
            found = names_of(self.familiarity.names, places.tolist())
        return EngineOutput(output.map.cpu().numpy(), output.score.cpu().numpy(), distances, found)


def load_engine(
    path: str, device: torch.device, trust: str | Sequence[str] = (), precision: str = "fp32"
) -> TorchEngine:
    """The detector in a checkpoint, on `device`; arguments and errors as of `Detector.load`."""
    with at_precision(device, precision):  # refuses an unknown one before anything is loaded
        pass
    module, checkpoint = build_saved(path, trust)
    with as_saved(path):
        data = build_saved_data(checkpoint, module)
    with as_saved(path, "its boundaries do not fit"):
        boundaries, known = checkpoint.get("calibration"), checkpoint.get("familiarity")
        calibration = Calibration.from_plain(boundaries) if boundaries else None
        familiarity = Familiarity.from_plain(known) if known else None
    return TorchEngine(
        module=module,
        framing=data.framing,
        image_size=data.image_size,
        white_level=as_number(data.white_level),
        channels=data.channels,
        mean=data.mean,
        std=data.std,
        device=device,
        precision=precision,
        model=str(checkpoint["config"]["model"]["_target_"]).rpartition(".")[2],
        categories=checkpoint.get("categories", ()),
        calibration=calibration,
        familiarity=familiarity,
    )


def find_device(name: str) -> torch.device:
    """The device called `name`, as `Detector.load` takes it. Raises InputError where there is none."""
    if not isinstance(name, str) or name == "meta":
        raise InputError(f"device={name}: expected auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device={name}: is not available here; expected auto, cpu, cuda or cuda:N") from error
    return device
