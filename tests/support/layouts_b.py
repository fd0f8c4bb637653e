"""Tiny trees of Real-IAD and of MVTec LOCO AD, AD 2 and 3D-AD: two categories each, pictures of 32 x 32 pixels."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 32


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
