"""Quality over steps and minutes: `recipe=paper` against `recipe=fast`, several seeds, and a picture of both.

    python benchmarks/recipes.py FOLDER data.root=industrial backbone=efficientnet_lite0 backbone.weights=FILE
        [--seeds 0 1 2] [--paper 30] [--fast 6] [--bank IMAGE PIXEL]

Trains on one thread (150 train images of each product, batch 8), looks at the test split on the way, and skips what
is there already. Minutes are processor time of the training steps alone (`clock.py`), so they mean the same on a busy
machine. `--bank` draws the figures of `model=memory_bank` as a line. Hours on two cores.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

SETTINGS = [
    "experiment=mvtec", "data.limit=150", "data.batch_size=8", "data.num_workers=0", "data.cache=disk", "trainer=cpu",
]  # fmt: skip
COLOURS = {"paper": "tab:gray", "fast": "tab:blue"}


class Curve(NamedTuple):
    """AUROC in percent over a training, at each look."""

    steps: np.ndarray
    minutes: np.ndarray
    image: np.ndarray
    pixel: np.ndarray


def train(folder: Path, recipe: str, epochs: int, seed: int, words: list[str]) -> Curve:
    if not (folder / "metrics.json").is_file():
        every = max(epochs // 6, 1)
        clock = ["+callbacks.clock._target_=clock.Clock", f"+callbacks.clock.output_dir={folder}"]
        command = [sys.executable, "-m", "uniad_lightning.command_line.cli", "train", *SETTINGS, *words, *clock]
        command += [f"recipe={recipe}", f"trainer.max_epochs={epochs}", f"seed={seed}", f"validate_every={every}"]
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([*command, f"output_dir={folder}", "overwrite=true"], check=True, env={**os.environ, **own})
    return read(folder)


def read(folder: Path) -> Curve:
    seconds = {int(row["step"]): float(row["seconds"]) for row in csv.DictReader((folder / "clock.csv").open())}
    (log,) = (folder / "logs").rglob("metrics.csv")
    rows = [row for row in csv.DictReader(log.open()) if row.get("mean/image_auroc")]
    looks = {int(row["step"]) + 1: row for row in rows if int(row["step"]) + 1 in seconds}
    steps = sorted(looks)
    return Curve(
        np.array(steps),
        np.array([seconds[step] / 60 for step in steps]),
        *(np.array([100 * float(looks[s][f"mean/{kind}_auroc"]) for s in steps]) for kind in ("image", "pixel")),
    )


def draw(path: Path, curves: dict[str, list[Curve]], bank: list[float] | None) -> None:
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    axes = figure.subplots(2, 2, sharey="row")
    for row, kind in enumerate(("image", "pixel")):
        for column, along in enumerate(("steps", "minutes")):
            ax = axes[row, column]
            for recipe, seeds in curves.items():
                for number, curve in enumerate(seeds):
                    label = f"recipe={recipe}" if number == 0 else None
                    ax.plot(getattr(curve, along), getattr(curve, kind), ".-", color=COLOURS[recipe], label=label)
            if bank is not None:
                ax.axhline(bank[row], color="tab:orange", linestyle=":", label="memory bank, no training")
            ax.set_xlabel(along if along == "steps" else "minutes of one core")
            ax.set_ylabel(f"mean {kind} AUROC, %")
            ax.grid(alpha=0.3)
    axes[0, 0].legend(loc="lower right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--paper", type=int, default=30, help="epochs")
    parser.add_argument("--fast", type=int, default=6, help="epochs")
    parser.add_argument("--bank", type=float, nargs=2, metavar=("IMAGE", "PIXEL"), help="AUROC in percent")
    given = parser.parse_intermixed_args()
    curves: dict[str, list[Curve]] = {"paper": [], "fast": []}
    for seed in given.seeds:
        for recipe, epochs in (("fast", given.fast), ("paper", given.paper)):
            folder = given.folder / f"{recipe}{epochs}_s{seed}"
            curves[recipe].append(train(folder, recipe, epochs, seed, given.words))
    draw(given.folder / "recipes.png", curves, given.bank)
    ends = {
        recipe: [[float(c.steps[-1]), c.minutes[-1], c.image[-1], c.pixel[-1]] for c in seeds]
        for recipe, seeds in curves.items()
    }
    (given.folder / "recipes.json").write_text(json.dumps(ends, indent=2) + "\n")
    for recipe, rows in ends.items():
        for seed, row in zip(given.seeds, rows, strict=True):
            print(f"{recipe:6} seed {seed}: {row[0]:5.0f} steps, {row[1]:5.1f} min, {row[2]:.1f} / {row[3]:.1f}")


if __name__ == "__main__":
    main()
