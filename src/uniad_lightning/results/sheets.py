"""Sheets of images: columns under their titles, a label above each row, and a bar that says what the colours mean."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from uniad_lightning.errors import printable
from uniad_lightning.heatmap import Scale, heat_colours

_GAP = 4  # pixels between images
_NARROWEST = 120  # images of fewer pixels are enlarged, so that titles fit above them
_FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def draw_sheet(
    columns: Mapping[str, Sequence[np.ndarray] | np.ndarray],
    labels: Sequence[str],
    *,
    notes: Sequence[str] = (),
    heading: str = "",
    scale: Scale | None = None,
) -> Image.Image:
    """Columns of images (H, W, 3) uint8 of one size under their titles.

    Above each row stands its label and, above its last two columns, its note; what does not fit is cut in the middle.
    Above all stand the heading and a bar of the colours of the `scale`. Small images are enlarged.
    """
    times = -(-_NARROWEST // next(iter(columns.values()))[0].shape[1])
    height, width = (times * side for side in next(iter(columns.values()))[0].shape[:2])
    font = ImageFont.truetype(str(_FONT), max(11, width // 16))
    line = round(1.5 * font.size)
    top = (2 * line if scale else line if heading else 0) + _GAP
    step = height + line + _GAP
    lefts = [_GAP + column * (width + _GAP) for column in range(len(columns))]
    aside = lefts[-2] if notes or scale else lefts[-1] + width + _GAP  # where notes and the bar begin
    sheet = Image.new("RGB", (lefts[-1] + width + _GAP, top + line + len(labels) * step), "white")
    draw = ImageDraw.Draw(sheet)
    _write(draw, heading, font, _GAP, _GAP, aside - _GAP)
    if scale is not None:
        _draw_bar(draw, sheet, scale, (aside, _GAP, sheet.width - _GAP, 2 * line), font)
    for title, left in zip(columns, lefts, strict=True):
        _write(draw, title, font, left, top, left + width)
    for row, (label, note) in enumerate(zip(labels, notes or [""] * len(labels), strict=True)):
        upper = top + line + row * step
        _write(draw, label, font, _GAP, upper, aside - _GAP)
        _write(draw, note, font, aside, upper, sheet.width - _GAP)
        for images, left in zip(columns.values(), lefts, strict=True):
            sheet.paste(Image.fromarray(images[row].repeat(times, 0).repeat(times, 1)), (left, upper + line))
    return sheet


def _write(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, left: int, upper: int, right: int
) -> None:
    draw.text((left, upper), fitting(text, right - left, font), fill="black", font=font)


def fitting(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """`text` in printable characters, its middle left out where it is wider than `width` pixels."""
    shown = whole = printable(text)
    kept = len(whole)
    while kept > 0 and font.getlength(shown) > width:
        kept -= 1
        shown = f"{whole[: -(-kept // 2)]}…{whole[len(whole) - kept // 2 :]}"
    return shown


def _draw_bar(
    draw: ImageDraw.ImageDraw,
    sheet: Image.Image,
    scale: Scale,
    box: tuple[int, int, int, int],
    font: ImageFont.FreeTypeFont,
) -> None:
    """The colours of `scale` in `box` (left, top, right, bottom), its values below them and the boundary marked."""
    left, top, right, bottom = box
    middle = (top + bottom) // 2
    colours = heat_colours(np.linspace(0, 1, right - left), 0, 1)
    sheet.paste(Image.fromarray(np.broadcast_to(colours, (middle - top, *colours.shape)).copy()), (left, top))
    draw.text((left, middle), f"{scale.low:.3g}", fill="black", font=font)
    draw.text((right, middle), f"{scale.high:.3g}", fill="black", font=font, anchor="ra")
    if scale.boundary is not None:
        x = left + (right - left) * (scale.boundary - scale.low) / (scale.high - scale.low)
        draw.line((x, top, x, middle), fill="black", width=max(2, int(font.size) // 6))
        words = fitting(f"pixel boundary {scale.boundary:.3g}", 0.6 * (right - left), font)
        draw.text((x, middle), words, fill="black", font=font, anchor="ma")
