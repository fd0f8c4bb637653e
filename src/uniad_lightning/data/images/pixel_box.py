"""A box in fractions of an image as whole pixels; without torch, for results of files that run without it."""

from uniad_lightning.types import Box, Size


def pixels(box: Box, size: Size) -> tuple[int, int, int, int]:
    """`box` (fractions) in pixels of an image of `size` (height, width): (top, left, bottom, right), not empty."""
    (height, width), (top, left, bottom, right) = size, box
    top, left = min(round(top * height), height - 1), min(round(left * width), width - 1)
    return top, left, max(round(bottom * height), top + 1), max(round(right * width), left + 1)
