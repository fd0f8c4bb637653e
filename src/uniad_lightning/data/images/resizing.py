"""Resizing of images and masks, shared by training, prediction and export.

Bilinear and antialiased on each axis by itself, as `torch.nn.functional.interpolate(mode="bilinear", antialias=True)`
does it and ONNX can express it.
"""

import numpy as np
from PIL import Image


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`image` (H, W, 3) uint8 at `size` (height, width), bilinear; antialiased along an axis that shrinks.

    An image that has the size already is returned as it is, not copied.
    """
    if image.shape[:2] == tuple(size):
        return image
    height, width = size
    # Across, then down: Pillow 13 resizes tall images down first, older versions never.
    across = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    return np.array(across.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`mask` (H, W) bool at `size` (height, width), by the nearest neighbour.

    A small defect can vanish. A mask that has the size already is returned as it is, not copied.
    """
    if mask.shape == tuple(size):
        return mask
    height, width = size
    grey = Image.fromarray(mask.astype(np.uint8))
    return np.array(grey.resize((width, height), Image.Resampling.NEAREST), dtype=bool)
