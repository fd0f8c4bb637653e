"""Pillow's bilinear resize in tensor operations, equal to the grey level, for graphs that run without Pillow.

Pillow resizes across, rounds to whole grey levels, and resizes down, with fixed-point weights (`Resample.c`, 22 bits).
ONNX has an antialiased `Resize`, but that of ONNX Runtime 1.32 is up to 2 grey levels off, and 22 at the edges of an
image. So each axis is a product with weights that the graph computes from the size of its input. As weights are 0
outside a narrow band, `TOGETHER` neighbouring outputs share the inputs that any of them needs.

Weights are quotients of whole numbers, found by long division, so that runtimes that compute float64 in float32
(OpenVINO, TensorRT) find the same ones; sums over pixels are exact in float32, too.
"""

import torch
from torch import Tensor

from uniad_lightning.types import Size

BITS = 22  # of Pillow's fixed-point weights, `PRECISION_BITS`
# Of these bits the lower ones are summed apart: both sums stay whole numbers below 2**24, which float32 holds exactly.
LOW = 7
# BITS, as many at a time as float32 divides exactly where a sum of shares is below 2**18: up to 5400 to 224 pixels.
DIGITS = (6, 6, 5, 5)
TOGETHER = 16


def resize_parts(images: Tensor, rows: Tensor, columns: Tensor, size: Size) -> Tensor:
    """Parts of images (B, H, W, 3) uint8, each resized to `size` (height, width): (B * R * C, 3, height, width).

    `rows` (R, 2) float64 are the (top, bottom) of the parts and `columns` (C, 2) their (left, right), in fractions of
    the image, rounded to whole pixels as in `tiling.pixels`; parts come row by row. The result is float32 and
    holds whole grey levels.
    """
    batch, high, wide, _ = images.shape
    images = images.float()  # at once: TensorRT takes bytes as an input and does nothing with them but this
    flat = images.permute(0, 2, 1, 3).reshape(batch, wide, high * 3)
    across = _resample(flat, columns, size[1])  # (B, C * width, H * 3)
    flat = across.unflatten(2, (high, 3)).transpose(1, 2).flatten(2)  # (B, H, C * width * 3)
    down = _resample(flat, rows, size[0])  # (B, R * height, C * width * 3)
    parts = down.view(batch, len(rows), size[0], len(columns), size[1], 3)
    return parts.permute(0, 1, 3, 5, 2, 4).flatten(0, 2)


def _resample(x: Tensor, spans: Tensor, size: int) -> Tensor:
    """The first axis of grey levels (B, L, M), each of its T `spans` (T, 2) resized to `size`: (B, T * size, M)."""
    length = torch.scalar_tensor(x.shape[1], dtype=torch.float64)
    first = torch.minimum(torch.round(spans[:, 0] * length), length - 1)  # half to even, as Python's
    last = torch.maximum(torch.round(spans[:, 1] * length), first + 1)
    pixels = (last - first)[:, None, None]
    groups = -(-size // TOGETHER)
    # Inputs of a group: (TOGETHER - 1) * scale + 2 * support, rounded up.
    shared = (TOGETHER + 1) * x.shape[1] // size + 5
    weights, start = _weights(pixels, size, groups, shared)
    places = first[:, None, None] + start + torch.arange(shared, dtype=torch.float64)  # (T, groups, shared)
    taken = x.index_select(1, places.clamp(max=length - 1).long().flatten())
    taken = taken.unflatten(1, (len(spans) * groups, shared))  # (B, T * groups, shared, M)
    upper = torch.round(weights * 2.0**-LOW)
    both = torch.cat([upper, weights - upper * 2.0**LOW], dim=2)  # (T, groups, 2 * TOGETHER, shared)
    both = both.flatten(0, 1).float()
    sums = torch.matmul(both, taken)  # (B, T * groups, 2 * TOGETHER, M)
    summed = sums[:, :, :TOGETHER] + torch.floor(sums[:, :, TOGETHER:] * 2.0**-LOW)
    levels = torch.floor(summed * 2.0 ** (LOW - BITS) + 0.5)  # at most 255: weights are not negative and sum to 1
    return levels.unflatten(1, (len(spans), groups)).flatten(2, 3)[:, :, :size].flatten(1, 2)


def _weights(pixels: Tensor, size: int, groups: int, shared: int) -> tuple[Tensor, Tensor]:
    """Pillow's weights of `size` outputs for T spans of `pixels` (T, 1, 1) inputs, and where each group's inputs start.

    Weights are (T, groups, TOGETHER, shared) float64 multiples of 2**-BITS, given as whole numbers; starts are
    (T, groups, 1), counted from the span's first input. An output beyond the last one repeats it.
    """
    # Lengths are in units of 1 / (2 * size) of an input, and so whole numbers.
    reach = 2 * pixels.clamp(min=size)
    outputs = torch.arange(groups * TOGETHER, dtype=torch.float64).clamp(max=size - 1)
    centre = (2 * outputs + 1).view(1, groups, TOGETHER) * pixels
    start = torch.floor((centre[:, :, :1] - reach + size) / (2 * size)).clamp(min=0)
    inputs = (start + torch.arange(shared, dtype=torch.float64))[:, :, None]  # (T, groups, 1, shared)
    distance = ((2 * inputs + 1) * size - centre[..., None]).abs()
    share = (reach[..., None] - distance).clamp(min=0) * (inputs < pixels[..., None])
    return _divided(share, share.sum(dim=-1, keepdim=True)), start


def _divided(share: Tensor, whole: Tensor) -> Tensor:
    """`share / whole * 2**BITS` of whole numbers, rounded half up: a remainder stays a whole number, which is exact."""
    quotient, rest = torch.zeros_like(share), share
    for bits in DIGITS:
        rest = rest * 2.0**bits
        digit = torch.floor(rest / whole)  # one off where the division is not exact, which the next digits make good
        rest = rest - digit * whole
        quotient = quotient * 2.0**bits + digit
    return quotient + torch.floor(rest / whole + 0.5)
