"""Tiny trees of the other layouts: VisA, BTAD, MPDD, KolektorSDD, Real-IAD, and MVTec LOCO AD, AD 2 and 3D-AD.

A good image of the first four is a grey slope in its category's brightness, a defective one has a white square, which
is its mask; an image of the others is a colour gradient.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from support.trees import mvtec_tree

SIZE = 32  # height and width of every picture


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
    _save(root / "03/ground_truth/ko/0001.bmp", np.zeros((SIZE, SIZE)))
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
                _save(label, np.zeros((SIZE, SIZE)))
    return root


def _slope(brightness: int) -> np.ndarray:
    """(H, W) from `brightness` up by 31 along both axes together."""
    return brightness + np.add.outer(np.arange(SIZE), np.arange(SIZE)) / 2


def _write_good(path: Path, brightness: int) -> None:
    _save(path, _slope(brightness))


def _write_defective(path: Path, mask: Path, brightness: int, start: int) -> None:
    """An image with a white square of 8 pixels from `start`, and its mask."""
    square = np.zeros((SIZE, SIZE))
    square[start : start + 8, start : start + 8] = 255
    _save(path, np.maximum(_slope(brightness), square))
    _save(mask, square)


def picture(path: Path) -> Path:
    """Writes a colour gradient and returns its path; the suffix says the format."""
    return _save(path, np.add.outer(np.arange(SIZE), np.arange(SIZE) * 2)[:, :, None] * np.array([1, 2, 2]) % 256)


def mask(path: Path, *, corner: int = 8) -> Path:
    """Writes a mask that is white in a square of `corner` pixels and black elsewhere; returns its path."""
    pixels = np.zeros((SIZE, SIZE))
    pixels[:corner, :corner] = 255
    return _save(path, pixels)


def _save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def mvtec_loco_tree(root: Path) -> Path:
    """Writes MVTec LOCO AD: 2 to train, 1 to validate, 1 good, 1 logical with 3 masks, 2 structural with 1 each."""
    for category in ("pushpins", "juice_bottle"):
        folder = root / category
        for name in ("train/good/000", "train/good/001", "validation/good/000", "test/good/000"):
            picture(folder / f"{name}.png")
        for defect, stem, masks in (
            ("logical_anomalies", "000", 3),
            ("structural_anomalies", "000", 1),
            ("structural_anomalies", "001", 1),
        ):
            picture(folder / "test" / defect / f"{stem}.png")
            for number in range(masks):
                mask(folder / "ground_truth" / defect / stem / f"{number:03d}.png", corner=4 * (number + 1))
        (folder / "defects_config.json").write_text("[]")
    return root


def mvtec_ad2_tree(root: Path) -> Path:
    """Writes MVTec AD 2: 2 to train, 1 to validate, 1 good and 2 bad in public, 1 in each private split."""
    for category in ("vial", "can"):
        folder = root / category
        for name in (
            "train/good/000_regular",
            "train/good/001_regular",
            "validation/good/000_regular",
            "test_public/good/000_regular",
            "test_private/000_regular",
            "test_private_mixed/000_mixed",
        ):
            picture(folder / f"{name}.png")
        for stem in ("000_overexposed", "000_regular"):
            picture(folder / "test_public/bad" / f"{stem}.png")
            mask(folder / "test_public/ground_truth/bad" / f"{stem}_mask.png")
    return root


def mvtec_3d_tree(root: Path) -> Path:
    """Writes MVTec 3D-AD: 2 to train, 1 to validate, 1 good with a black mask, 1 crack and 2 holes."""
    for category in ("tire", "bagel"):
        folder = root / category
        for name in ("train/good/{}/000", "train/good/{}/001", "validation/good/{}/000", "test/good/{}/000"):
            _scan(folder, name)
        mask(folder / "test/good/gt/000.png", corner=0)
        for name in ("crack/{}/000", "hole/{}/000", "hole/{}/001"):
            _scan(folder / "test", name)
            mask(folder / "test" / f"{name.format('gt')}.png")
    return root


def _scan(folder: Path, name: str) -> None:
    picture(folder / f"{name.format('rgb')}.png")
    picture(folder / f"{name.format('xyz')}.tiff")


def real_iad_tree(root: Path) -> Path:
    """Writes Real-IAD at one size: 1 sample to train, 1 good and 1 bent one to test, all from 2 sides.

    The bend shows from the first side only, so the second picture of that sample is a good one.
    """
    for category in ("usb", "audiojack"):
        train = [_entry(category, "OK", "OK/S0001", f"C{view}") for view in (1, 2)]
        test = [_entry(category, "OK", "OK/S0002", f"C{view}") for view in (1, 2)]
        test += [_entry(category, "BX", "NG/BX/S0003", "C1"), _entry(category, "OK", "NG/BX/S0003", "C2")]
        for entry in train + test:
            picture(root / "realiad_1024" / category / str(entry["image_path"]))
            if entry["mask_path"]:
                mask(root / "realiad_1024" / category / entry["mask_path"])
        content = {"meta": {"prefix": f"{category}/", "normal_class": "OK"}, "train": train, "test": test}
        file = root / "realiad_jsons" / f"{category}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root


def _entry(category: str, kind: str, sample: str, view: str) -> dict[str, str | None]:
    """One entry of a JSON file, named as in the archive."""
    label, number = sample.split("/")[0], sample[-4:]
    stem = f"{sample}/{category}_{number}_{label}_{kind}_{view}_20231021"
    return {
        "category": category,
        "anomaly_class": kind,
        "image_path": f"{stem}.jpg",
        "mask_path": None if kind == "OK" else f"{stem}.png",
    }
