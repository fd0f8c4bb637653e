"""Types that all parts share: the batch, sizes and boxes, and the letters that stand for sizes.

B images in a batch; C channels; (H, W) an image's size in pixels; (h, w) the size of the feature grid;
N = h*w tokens in row-major order; E the transformer's width. Sizes are always (height, width).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from uniad_lightning.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import, and an exported file runs without it
    from torch import Tensor

Size = tuple[int, int]
Box = tuple[float, float, float, float]  # (top, left, bottom, right) in fractions of an image


def pair(value: int | Sequence[int], key: str) -> Size:
    """(height, width) from one number for both or from two; InputError names the config `key` otherwise."""
    sizes = (value, value) if isinstance(value, int) else tuple(value)
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise InputError(f"{key}={value} is not a size; expected a positive whole number, or two as [height, width]")
    return sizes[0], sizes[1]


class Batch(TypedDict, total=False):
    """One batch of a `UnifiedDataModule`: with images, or from the feature cache with features in their place.

    Attributes:
        image: (B, 3, H, W) float32, normalised as the backbone expects.
        feature: (B, C, h, w) float16, the backbone's features of the image.
        damaged: (B, V, 3, H, W) float32, V versions of a training image with a synthetic defect, where there are any.
        damage: (B, V, H, W) bool, True = pixel of the synthetic defect.
        mask: (B, H, W) bool, True = defective pixel, on the host; not in training batches from the cache.
        has_mask: (B,) bool, False where the data set has no mask for a defective image.
        label: (B,) int64, 0 = good, 1 = defective.
        category: (B,) int64, used by the metrics alone.
        index: (B,) int64, the sample's place in its split.
    """

    image: "Tensor"
    feature: "Tensor"
    damaged: "Tensor"
    damage: "Tensor"
    mask: "Tensor"
    has_mask: "Tensor"
    label: "Tensor"
    category: "Tensor"
    index: "Tensor"
