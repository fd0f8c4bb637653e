"""A detector's features, their reconstruction and the learned queries, rendered as images (Figs. 2b, 6, A2 and A3)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from uniad_lightning.data.dataset import normalise
from uniad_lightning.detectors.feature_reconstruction import FeatureReconstruction
from uniad_lightning.inspection.engines.checkpoint import TorchEngine
from uniad_lightning.models.feature_decoder import FeatureDecoder
from uniad_lightning.models.layers.standardize import Standardize
from uniad_lightning.types import Batch


class Rendered(NamedTuple):
    """B images as a detector works with them, the tiles of each stitched together.

    Attributes:
        features: the features to reconstruct, rendered as images (B, H, W, 3) uint8.
        reconstruction: their reconstruction, rendered likewise.
        map: anomaly maps (B, H, W) float32.
    """

    features: np.ndarray
    reconstruction: np.ndarray
    map: np.ndarray


class Renderer:
    """Renders the features of `module`, the detector in `engine`, by `decoder`, trained for the same backbone."""

    def __init__(self, *, engine: TorchEngine, module: FeatureReconstruction, decoder: FeatureDecoder):
        self.engine = engine
        self.module = module
        self.decoder = decoder.eval().to(engine.device)

    @torch.inference_mode()
    def render(self, images: Sequence[np.ndarray]) -> Rendered:
        """Render the features of images, each (H, W, 3) uint8 RGB of any size, and compute their anomaly maps."""
        engine = self.engine
        tiles = [tile for image in images for tile in engine.framing.tiles_of(image, engine.image_size)]
        tokens = self.module.tokens(Batch(image=normalise(tiles, engine.mean, engine.std).to(engine.device)))
        features, reconstruction = (
            self._stitched(self._render_tokens(t)) for t in (tokens, self.module.network(tokens))
        )
        return Rendered(features, reconstruction, engine.inspect(images).map.cpu().numpy())

    @torch.inference_mode()
    def render_queries(self) -> dict[str, np.ndarray]:
        """The learned queries of each decoder layer as images (H, W, 3) uint8; empty for a network without queries.

        A query goes through the network's output projection to the backbone's channels alone, and is rendered like a
        reconstruction (R; not in the paper). `zero` is a query of zeros, which gives the projection's bias, `random`
        one as queries are before the training.
        """
        network = self.module.network
        queries = learned_queries(network)
        if not queries:
            return {}
        first = next(iter(queries.values()))
        random = torch.randn(first.shape, generator=torch.Generator().manual_seed(0)).to(first)
        queries |= {"random": random, "zero": torch.zeros_like(first)}
        projected = network.output_proj(torch.stack(list(queries.values())))  # type: ignore[operator]
        return dict(zip(queries, _bytes(self._render_tokens(projected)), strict=True))

    def _render_tokens(self, tokens: Tensor) -> Tensor:
        """Render tokens (n, N, C), standardised if the detector standardises, as images (n, H, W, 3) in [0, 1]."""
        module = self.module
        if isinstance(module.standardize, Standardize):
            tokens = tokens * module.standardize.std + module.standardize.mean
        image = self.decoder(tokens.transpose(1, 2).unflatten(2, module.backbone.grid)).cpu()  # (n, 3, H, W)
        return (image * self.engine.std + self.engine.mean).clamp(0, 1).permute(0, 2, 3, 1)

    def _stitched(self, image: Tensor) -> np.ndarray:
        """Images of tiles (B * T, H, W, 3) stitched to images of the region (B, H', W', 3) uint8."""
        return _bytes(torch.stack([self.engine.framing.stitch(image[..., channel]) for channel in range(3)], dim=-1))


def _bytes(image: Tensor) -> np.ndarray:
    return image.mul(255).round().byte().numpy()


def learned_queries(network: nn.Module) -> dict[str, Tensor]:
    """The learned queries (N, E) of a network's decoder layers, by the layer's name; empty for a network without."""
    transformer = getattr(network, "transformer", None)
    layers = () if transformer is None else transformer.decoder
    return {f"layer {i}": layer.query for i, layer in enumerate(layers, start=1) if layer.query is not None}
