"""A trained detector as one graph of tensor operations, from RGB bytes of any size to score, map and decision."""

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from uniad_lightning.exporting.pillow_resize import resize_parts
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.inspection.familiarity import Familiarity
from uniad_lightning.models.backbone.feature_pyramid import Backbone
from uniad_lightning.types import Batch

AXES = ("batch", "height", "width")


class DetectorGraph(nn.Module):
    """The inspection of images by `engine` as tensor operations: {score, map, distance, category, defective}.

    `image` (B, H, W, 3) uint8 RGB, any B, H and W. `score` (B,) float32; `map` (B, h, w) float32, the region at the
    size that is scored; if calibrated, `distance` (B,) float32, the distance from the training images, relative to its
    boundary at 1, `category` (B,) int64, that of the nearest of them, and `defective` (B,) bool, the score above the
    boundary (`Calibration.deciding`).
    """

    rows: Tensor
    columns: Tensor
    mean: Tensor
    std: Tensor
    boundaries: Tensor

    def __init__(self, engine: TorchEngine):
        super().__init__()
        self.module = copy.deepcopy(engine.module)
        for part in self.module.modules():
            if isinstance(part, Backbone):
                part.fold()  # while traced it does not fold by itself
        self.framing, self.image_size, self.map_size = engine.framing, engine.image_size, engine.map_size
        boxes, across = torch.tensor(engine.framing.boxes, dtype=torch.float64), engine.framing.tiles[1]
        self.register_buffer("rows", boxes[::across][:, [0, 2]])  # (R, 2)
        self.register_buffer("columns", boxes[:across][:, [1, 3]])  # (C, 2)
        self.register_buffer("mean", engine.mean.clone())
        self.register_buffer("std", engine.std.clone())
        self.requires_grad_(False)
        self.nearest = None if engine.familiarity is None else Nearest(engine.familiarity)
        self.calibrated = engine.calibration is not None
        names = () if engine.familiarity is None else engine.familiarity.names
        if engine.calibration is not None:  # of each category, and last that of an image whose category is not known
            deciding = [engine.calibration.deciding(name).score for name in (*names, None)]
            self.register_buffer("boundaries", torch.tensor(deciding, dtype=torch.float64))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, H, W, 3) -> the outputs of the class docstring."""
        tiles = resize_parts(image, self.rows, self.columns, self.image_size)
        tiles = tiles.div(255).sub(self.mean).div(self.std)  # (B * T, 3, H, W)
        if self.framing.count > 1:
            tiles = tiles.unflatten(0, (-1, self.framing.count))
        output = self.module.inspect(Batch(image=tiles), framing=self.framing, size=self.map_size)
        outputs = {"score": output.score, "map": output.map}
        boundary = self.boundaries[-1:] if self.calibrated else None
        if self.nearest is not None and output.descriptor is not None:
            outputs["distance"], outputs["category"] = self.nearest(output.descriptor)
            if boundary is not None:
                boundary = self.boundaries[outputs["category"]]
        if boundary is not None:
            outputs["defective"] = output.score.double() > boundary
        return outputs


class Nearest(nn.Module):
    """`Familiarity.nearest`, distances relative to their boundary, without `cdist`, which ONNX lacks."""

    mean: Tensor
    std: Tensor
    known: Tensor
    owners: Tensor

    def __init__(self, familiarity: Familiarity):
        super().__init__()
        self.register_buffer("mean", familiarity.mean.clone())
        self.register_buffer("std", familiarity.std.clone())
        self.register_buffer("known", (familiarity.references - familiarity.mean) / familiarity.std)  # (n, C)
        self.register_buffer("owners", familiarity.owners.clone())  # (n,)
        self.boundary = familiarity.boundary

    def forward(self, descriptor: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C) -> distances (B,) and places of categories (B,)."""
        scaled = ((descriptor - self.mean) / self.std)[:, None]  # (B, 1, C)
        distance, place = (scaled - self.known).square().mean(dim=2).min(dim=1)
        return distance.sqrt() / self.boundary, self.owners[place]


def trace(engine: TorchEngine) -> ExportedProgram:
    """The `DetectorGraph` of `engine` as a program for any number of images of any size."""
    sizes = {"image": {axis: Dim(name, min=1) for axis, name in enumerate(AXES)}}
    example = torch.zeros(2, 41, 37, 3, dtype=torch.uint8)
    with torch.no_grad():
        return torch.export.export(DetectorGraph(engine).eval(), (example,), dynamic_shapes=sizes)
