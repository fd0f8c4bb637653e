"""Checks of single images and their masks."""

from collections.abc import Iterable, Iterator

from uniad_lightning.data_check.findings import Finding
from uniad_lightning.data_check.looks import Look, MaskLook

_CONSTANT = 1.0  # grey levels of standard deviation; the noise of a camera in the dark is about that


def check_images(looks: Iterable[Look]) -> Iterator[Finding]:
    """Images that cannot be read or show nothing, and masks that cannot be read or do not fit their image."""
    for look in looks:
        if look.fault:
            yield _unreadable(look)
        elif look.deviation < _CONSTANT:
            found = f"its values have a standard deviation of {look.deviation:.1f} of 255"
            yield Finding("constant image", look.record.image, found)
        for mask in look.masks:
            yield from _check_mask(mask, look)


def _unreadable(look: Look | MaskLook) -> Finding:
    file = look.path if isinstance(look, MaskLook) else look.record.image
    return Finding("truncated or damaged" if look.damaged else "unreadable", file, look.fault)


def _check_mask(mask: MaskLook, look: Look) -> Iterator[Finding]:
    image = look.record.image
    if mask.fault:
        yield _unreadable(mask)
        return
    if not look.fault and mask.size != look.size:
        sizes = " and ".join(f"{height} x {width}" for height, width in (mask.size, look.size))
        yield Finding("mask of another size", mask.path, f"mask and image have {sizes} pixels", image)
    if mask.share == 0:
        yield Finding("empty mask", mask.path, f"no pixel of a defective image ({look.record.defect}) is marked", image)
    elif mask.share == 1:
        yield Finding("full mask", mask.path, "every pixel is marked as defective", image)
    elif mask.share > 0.5:
        yield Finding("mask of more than half", mask.path, f"{mask.share:.0%} of its pixels are marked", image)
    if mask.values > 2:
        found = f"{mask.values} values, as smoothed or compressed edges have"
        yield Finding("values of a mask", mask.path, found, image)
