"""Drift on photographs: a memory bank of several products, then good images of each, then a disturbed camera.

    python benchmarks/drift_photos.py OUT FOLDER [FOLDER...] [--backbone efficientnet_lite2] [--images 100]

Each FOLDER is a product in the layout of MVTec AD. Of its good images (train and test, shuffled), `--images` train and
calibrate the bank, and up to 400 others come along the line, one in twenty of them a defective one of the test split;
then up to 150 of the good ones again for each disturbance. Prints for every product the state after the undisturbed
ones, and after how many disturbed images drift is called.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageFilter

from uniad_lightning import Detector
from uniad_lightning.drift.monitor import DRIFT, Monitor

UNDISTURBED, DISTURBED = 400, 150
WINDOWS = (50, 100, 200)
DISTURBANCES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "darker by 10 %": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "darker by 30 %": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "out of focus (sigma 0.5 % of the width)": lambda image: image.filter(
        ImageFilter.GaussianBlur(0.005 * image.width)
    ),
    "moved by 3 % of the width": lambda image: ImageChops.offset(image, round(0.03 * image.width), 0),
    "turned by 3 degrees": lambda image: image.rotate(3, Image.Resampling.BILINEAR, fillcolor=image.getpixel((0, 0))),
}


def uniad(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "uniad_lightning.command_line.cli", *words], check=True)


def prepare(out: Path, folder: Path, images: int) -> None:
    """Write the images of one product: to train on, and those of the line in the order of their names."""
    rng = np.random.default_rng(0)
    good = sorted([*(folder / "train/good").iterdir(), *(folder / "test/good").iterdir()])
    good = [good[place] for place in rng.permutation(len(good))]
    bad = [
        path for kind in sorted((folder / "test").iterdir()) if kind.name != "good" for path in sorted(kind.iterdir())
    ]
    bad = [bad[place] for place in rng.permutation(len(bad))]
    train, line = out / "train" / folder.name / "good", out / "line" / folder.name
    for place in (train, *(line / name.replace(" ", "_") for name in ("undisturbed", *DISTURBANCES))):
        place.mkdir(parents=True)
    for number, path in enumerate(good[:images]):
        (train / f"{number:04d}{path.suffix}").symlink_to(path.resolve())
    for number, path in enumerate(good[images:][:UNDISTURBED]):
        shown = bad[number // 20] if number % 20 == 19 and number // 20 < len(bad) else path
        (line / "undisturbed" / f"{number:04d}{shown.suffix}").symlink_to(shown.resolve())
    for name, disturb in DISTURBANCES.items():
        for number, path in enumerate(good[images:][:DISTURBED]):
            with Image.open(path) as opened:
                disturb(opened.convert("RGB")).save(line / name.replace(" ", "_") / f"{number:04d}.png")


def rows_of(out: Path, product: str, name: str) -> list[dict[str, Any]]:
    """The rows of one part of the line."""
    place = f"{product}/{name.replace(' ', '_')}"
    folder = out / "predicted" / place
    uniad("predict", f"ckpt_path={out}/run", f"input={out}/line/{place}", f"output_dir={folder}", "overlays=none")
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def fed(monitor: Monitor, rows: list[dict[str, Any]], product: str) -> tuple[int | None, str]:
    """After how many of these rows `product` is first in drift, None for never; and why, or how it is at the end."""
    for number, row in enumerate(rows, start=1):
        monitor.add(row["category"], row["score"], familiar=row["familiar"])
        if monitor.product(product).state == DRIFT:
            return number, monitor.product(product).why
    return None, monitor.product(product).why


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--backbone", default="efficientnet_lite2")
    parser.add_argument("--images", type=int, default=100)
    given = parser.parse_args()
    for folder in given.folders:
        prepare(given.out, folder, given.images)
    uniad(
        "train", "data=folder", f"data.root={given.out}/train", "data.source.test_share=0.1", "model=memory_bank",
        "model.coreset=0.1", f"backbone={given.backbone}", "data.batch_size=8", f"output_dir={given.out}/run",
        "calibrate=true", "yardstick=false", "data.num_workers=0",
    )  # fmt: skip
    calibration = Detector.load(given.out / "run").calibration
    for product in (folder.name for folder in given.folders):
        before = rows_of(given.out, product, "undisturbed")
        after = {name: rows_of(given.out, product, name) for name in DISTURBANCES}
        for window in WINDOWS:
            print(f"{product}, window {window}:", calibration.baselines[product])
            print("  undisturbed:", fed(Monitor(calibration, window=window, defects=0.1), before, product))
            for name, rows in after.items():
                monitor = Monitor(calibration, window=window, defects=0.1)
                fed(monitor, before, product)
                print(f"  {name}:", fed(monitor, rows, product), flush=True)


if __name__ == "__main__":
    main()
