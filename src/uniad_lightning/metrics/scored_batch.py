"""The images of one batch as an evaluation takes them: checked, and packed for counting."""

from typing import NamedTuple

from torch import Tensor

from uniad_lightning.files.mask_bits import compress_mask
from uniad_lightning.metrics.histogram import ScoredImage


class ScoredBatch(NamedTuple):
    """B images; all tensors but the masks are on the CPU."""

    maps: Tensor  # (B, h, w) float32
    scores: Tensor  # (B,) float64
    masks: Tensor  # (B, H, W) bool, True = defective
    has_mask: Tensor  # (B,) bool
    labels: Tensor  # (B,) int64, 0 or 1
    categories: Tensor  # (B,) int64
    indices: Tensor  # (B,) int64, places in the split

    def check(self, *, categories: int, images: int) -> None:
        """Raises ValueError for shapes that do not fit, values that are not finite, and numbers out of range."""
        lengths = [len(tensor) for tensor in self]
        if self.maps.ndim != 3 or self.masks.ndim != 3 or len({*lengths}) > 1:
            raise ValueError(
                f"maps {tuple(self.maps.shape)}, masks {tuple(self.masks.shape)} and lengths {lengths}; "
                "expected (B, h, w), (B, H, W) and one length B for all"
            )
        unusable = ~(self.maps.isfinite().all(2).all(1) & self.scores.isfinite())
        if unusable.any():
            image = int(self.indices[unusable][0])
            raise ValueError(f"image {image}: NaN or infinite anomaly map or score; expected finite float32 numbers")
        for name, column, end in (
            ("label", self.labels, 2),
            ("category", self.categories, categories),
            ("index", self.indices, images),
        ):
            wrong = (column < 0) | (column >= end)
            if wrong.any():
                image, value = int(self.indices[wrong][0]), int(column[wrong][0])
                raise ValueError(f"image {image}: {name} {value} is out of range; expected 0..{end - 1}")

    def images(self, valid: Tensor | None) -> list[ScoredImage]:
        """The images one by one, their masks compressed; only `valid` pixels (H, W) bool may be defective."""
        size = (self.masks.shape[1], self.masks.shape[2])
        masks = self.masks.cpu() if valid is None else self.masks.cpu() & valid
        packed = [
            compress_mask(mask) if known else b""
            for mask, known in zip(masks.numpy(), self.has_mask.tolist(), strict=True)
        ]
        columns = self.categories.tolist(), self.indices.tolist()
        return list(map(ScoredImage, self.maps, packed, [size] * len(self.maps), *columns))
