"""Tiny trees of VisA, BTAD, MPDD and KolektorSDD for the tests, the same every time.

A good image is a grey slope in its category's brightness; a defective one has a white square, which is its mask.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from fabricate import mvtec_tree

_SIDE = 32


def visa_tree(root: Path) -> Path:
    """Writes VisA with the categories candle and pcb1 below `root` and returns it.

    Of each category 0000 to 0004 are normal, 0 and 3 of them to test on, and 000 and 001 have anomalies. The rows of
    `split_csv/1cls.csv` are in no order, and their lines end as they do in the original.
    """
    rows = ["object,split,label,image,mask"]
    for position, category in enumerate(("candle", "pcb1")):
        images = Path(category, "Data/Images")
        for index in (2, 0, 4, 3, 1):
            name = images / "Normal" / f"{index:04d}.JPG"
            _write_good(root / name, 60 + 80 * position + index)
            rows.append(f"{category},{'test' if index in (0, 3) else 'train'},normal,{name.as_posix()},")
        for index in (1, 0):
            name = images / "Anomaly" / f"{index:03d}.JPG"
            mask = Path(category, "Data/Masks/Anomaly", f"{index:03d}.png")
            _write_defective(root / name, root / mask, 60 + 80 * position, 4 + index)
            rows.append(f"{category},test,anomaly,{name.as_posix()},{mask.as_posix()}")
    table = root / "split_csv/1cls.csv"
    table.parent.mkdir(parents=True)
    table.write_bytes("".join(f"{row}\r\n" for row in rows).encode())
    return root


def btad_tree(root: Path) -> Path:
    """Writes BTAD below `root` and returns it: 3 images to train on, 2 good and 2 defective ones to test on for each.

    The pictures and masks have the suffixes of the original: .bmp and .png in 01, .png in 02, .bmp in 03. The mask of
    03/test/ko/0001.bmp is black, as there are some.
    """
    for position, (category, suffix, of_mask) in enumerate(
        [("01", ".bmp", ".png"), ("02", ".png", ".png"), ("03", ".bmp", ".bmp")]
    ):
        folder = root / category
        for split, number in (("train", 3), ("test", 2)):
            for index in range(number):
                _write_good(folder / split / "ok" / f"{index:04d}{suffix}", 40 + 60 * position + index)
        for index in range(2):
            mask = folder / "ground_truth/ko" / f"{index:04d}{of_mask}"
            _write_defective(folder / "test/ko" / f"{index:04d}{suffix}", mask, 40 + 60 * position, 4 + index)
    _save(root / "03/ground_truth/ko/0001.bmp", np.zeros((_SIDE, _SIDE)))
    return root


def mpdd_tree(root: Path) -> Path:
    """Writes MPDD with the categories connector and tubes below `root` and returns it; numbers as in `mvtec_tree`."""
    return mvtec_tree(root, categories=("connector", "tubes"))


def kolektor_tree(root: Path) -> Path:
    """Writes KolektorSDD with the items kos01 to kos06 of three surfaces each below `root` and returns it.

    Part1 of each item has a defect, and Part2 of kos05 as well.
    """
    for number in range(1, 7):
        item = root / f"kos{number:02d}"
        for part in range(3):
            image, label = item / f"Part{part}.jpg", item / f"Part{part}_label.bmp"
            if part == 1 or (number, part) == (5, 2):
                _write_defective(image, label, 60 + number, 4 + part)
            else:
                _write_good(image, 60 + number)
                _save(label, np.zeros((_SIDE, _SIDE)))
    return root


def _slope(brightness: int) -> np.ndarray:
    """(H, W) from `brightness` up by 31 along both axes together."""
    return brightness + np.add.outer(np.arange(_SIDE), np.arange(_SIDE)) / 2


def _write_good(path: Path, brightness: int) -> None:
    _save(path, _slope(brightness))


def _write_defective(path: Path, mask: Path, brightness: int, start: int) -> None:
    """An image with a white square of 8 pixels from `start`, and its mask."""
    square = np.zeros((_SIDE, _SIDE))
    square[start : start + 8, start : start + 8] = 255
    _save(path, np.maximum(_slope(brightness), square))
    _save(mask, square)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
