"""Photographs from a line, sorted into folders as a person would: new good ones, and faint defects."""

from pathlib import Path

import numpy as np
from PIL import Image

from support.trees import mvtec_tree


def line_photos(root: Path) -> Path:
    """Writes photographs of the products of `mvtec_tree` below `root` and returns it, the same every time.

    root/<product>/plain/*.png      good, as in the training
    root/<product>/bright/*.png     good, with a reflection that the training never had
    root/<product>/hole/*.png       with a plain defect
    root/<product>/faint/*.png      with a defect that can hardly be seen
    """
    tree = mvtec_tree(root / "tree", train=4, good=3, defects={"hole": 3}, size=(80, 72), seed=7)
    for product in ("bottle", "cable"):
        for index, path in enumerate(sorted((tree / product / "train" / "good").iterdir())):
            pixels = np.asarray(Image.open(path)).astype(float)
            for kind, change in (("plain", 0.0), ("bright", 45.0), ("faint", 2.0)):
                changed = pixels.copy()
                changed[20:44, 30:50] += change
                _save(root / product / kind / f"{index:02d}.png", changed)
        for index, path in enumerate(sorted((tree / product / "test" / "hole").iterdir())):
            _save(root / product / "hole" / f"{index:02d}.png", np.asarray(Image.open(path)).astype(float))
    for path in sorted(tree.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    tree.rmdir()
    return root


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
