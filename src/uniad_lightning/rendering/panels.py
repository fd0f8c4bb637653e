"""What a detector reconstructs, rendered as images, beside what it was shown (Figs. 2b, 6, A2 and A3)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from uniad_lightning.data.dataset import normalise
from uniad_lightning.data.images.decoding import read_record, resize, resize_mask
from uniad_lightning.data.images.tiling import cut
from uniad_lightning.data.records import Record
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.errors import printable
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.inspection.result import COLOURS
from uniad_lightning.models.feature_decoder import FeatureDecoder
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.types import Batch

GREY = 128  # what is not known


class Rendered(NamedTuple):
    """What a detector makes of B pictures, the tiles of each put together.

    Attributes:
        features: the features it is to reconstruct, as images (B, H, W, 3) uint8.
        reconstruction: its reconstruction of them, in the same way.
        map: anomaly maps (B, H, W) float32.
    """

    features: np.ndarray
    reconstruction: np.ndarray
    map: np.ndarray


class Renderer:
    """Shows through `decoder` what the detector of `engine`, `module`, works with; the decoder is for its backbone."""

    def __init__(self, *, engine: TorchEngine, module: FeatureReconstruction, decoder: FeatureDecoder):
        self.engine = engine
        self.module = module
        self.decoder = decoder.eval().to(engine.device)

    @torch.inference_mode()
    def render(self, images: Sequence[np.ndarray]) -> Rendered:
        """Judge pictures, each (H, W, 3) uint8 RGB of any size, and render their features."""
        engine = self.engine
        tiles = [tile for image in images for tile in engine.framing.tiles_of(image, engine.image_size)]
        tokens = self.module.tokens(Batch(image=normalise(tiles, engine.mean, engine.std).to(engine.device)))
        features, reconstruction = (self._whole(self._paint(t)) for t in (tokens, self.module.network(tokens)))
        return Rendered(features, reconstruction, engine.inspect(images).map.cpu().numpy())

    @torch.inference_mode()
    def render_queries(self) -> dict[str, np.ndarray]:
        """The learned queries of each decoder layer as images (H, W, 3) uint8; none of a network without queries.

        A query takes the last step of the network alone, the output projection to the backbone's channels, and is
        rendered as if it were a reconstruction (R; not in the paper). Beside them what that makes of no query, which is
        the projection's bias, and of a random one, as queries are before the training.
        """
        network = self.module.network
        queries = learned_queries(network)
        if not queries:
            return {}
        first = next(iter(queries.values()))
        drawn = torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
        queries |= {"random": drawn, "zero": torch.zeros_like(first)}
        projected = network.output_proj(torch.stack(list(queries.values())))  # type: ignore[operator]
        return dict(zip(queries, _bytes(self._paint(projected)), strict=True))

    def _paint(self, tokens: Tensor) -> Tensor:
        """Tokens (n, N, C), standardised where the detector's are, as images (n, H, W, 3) in [0, 1]."""
        module = self.module
        if isinstance(module.standardize, Standardize):
            tokens = tokens * module.standardize.std + module.standardize.mean
        image = self.decoder(tokens.transpose(1, 2).unflatten(2, module.backbone.grid)).cpu()  # (n, 3, H, W)
        return (image * self.engine.std + self.engine.mean).clamp(0, 1).permute(0, 2, 3, 1)

    def _whole(self, image: Tensor) -> np.ndarray:
        """Images of tiles (B * T, H, W, 3) as those of the region (B, H', W', 3), uint8."""
        return _bytes(torch.stack([self.engine.framing.stitch(image[..., channel]) for channel in range(3)], dim=-1))


def _bytes(image: Tensor) -> np.ndarray:
    return image.mul(255).round().byte().numpy()


def learned_queries(network: nn.Module) -> dict[str, Tensor]:
    """The learned queries (N, E) of a network's decoder layers, by the layer's name; none of a network without."""
    transformer = getattr(network, "transformer", None)
    layers = () if transformer is None else transformer.decoder
    return {f"layer {i}": layer.query for i, layer in enumerate(layers, start=1) if layer.query is not None}


def draw_category(
    records: Sequence[Record], references: Sequence[Record], own: Renderer, others: Mapping[str, Renderer]
) -> Image.Image:
    """A row for each of the `records`: a normal reference, the input, what `own` makes of it, and the ground truth.

    The reconstructions of `others`, detectors on the same backbone, stand beside by their names. The normal
    `references` take turns. Anomaly maps share one scale. What is not known is grey: a mask, a reference.
    """
    engine = own.engine
    size, region = engine.map_size, engine.region
    read = [read_record(record, white_level=engine.white_level) for record in records]
    images = [image for image, _ in read]
    inputs = [resize(cut(image, region), size) for image in images]
    shown_normal = (read_record(record, white_level=engine.white_level)[0] for record in references[: len(records)])
    normal = [resize(cut(image, region), size) for image in shown_normal]
    normal = normal or [np.full((*size, 3), GREY, dtype=np.uint8)]
    truth = [
        np.full((*size, 3), GREY, dtype=np.uint8)
        if record.label and not record.masks
        else np.repeat(resize_mask(cut(mask, region), size)[..., None] * np.uint8(255), 3, axis=2)
        for record, (_, mask) in zip(records, read, strict=True)
    ]
    shown = own.render(images)
    low, high = shown.map.min(), shown.map.max()
    heat = COLOURS[((shown.map - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)]  # (B, H, W, 3)
    columns = {
        "normal reference": [normal[row % len(normal)] for row in range(len(records))],
        "input": inputs,
        "its features": shown.features,
        "reconstruction": shown.reconstruction,
        **{name: other.render(images).reconstruction for name, other in others.items()},
        "ground truth": truth,
        "anomaly map": heat,
        "overlay": (0.55 * np.stack(inputs) + 0.45 * heat).astype(np.uint8),
    }
    return draw_sheet(columns, [f"{record.category} / {record.defect} / {record.image.name}" for record in records])


def draw_sheet(columns: Mapping[str, Sequence[np.ndarray] | np.ndarray], labels: Sequence[str]) -> Image.Image:
    """Columns of pictures (H, W, 3) uint8 of one size under their titles, with a label above each row."""
    gap, line = 4, 18
    height, width = next(iter(columns.values()))[0].shape[:2]
    step = height + line + gap
    sheet = Image.new("RGB", (len(columns) * (width + gap) + gap, line + len(labels) * step), "white")
    draw = ImageDraw.Draw(sheet)
    for row, label in enumerate(labels):
        draw.text((gap, line + row * step + 2), printable(label), fill="black")
    for column, (title, pictures) in enumerate(columns.items()):
        left = gap + column * (width + gap)
        draw.text((left, 4), printable(title), fill="black")
        for row, pixels in enumerate(pictures):
            sheet.paste(Image.fromarray(pixels), (left, 2 * line + row * step))
    return sheet
