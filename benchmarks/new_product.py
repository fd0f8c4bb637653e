"""A new product joins a trained model: from its checkpoint, from scratch, and by naive fine-tuning, side by side.

    python benchmarks/new_product.py FOLDER [--new gear] [--seeds 0 1] [--steps 360]

On the synthetic products of the demo: a model of five, then the sixth. Prints image AUROC of the new product, the mean
of the old ones, and what these lost against before, and writes `new_product.json` into FOLDER. Minutes a seed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

PRODUCTS = ["capsule", "circuit", "fabric", "gear", "tile", "wood"]


def uniad(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "uniad_lightning.command_line.cli", *words, "overwrite=true"], check=True)


def trained(folder: Path, *words: str) -> dict[str, float]:
    """Image AUROC of all six products after a training, which is run unless it is there."""
    everything = folder / "evaluation"
    if not (everything / "metrics.json").is_file():
        started = time.monotonic()
        uniad("train", "experiment=demo", *words, f"output_dir={folder}")
        (folder / "seconds.txt").write_text(f"{time.monotonic() - started:.1f}")
        checkpoint = f"ckpt_path={folder / 'checkpoints/last.ckpt'}"
        uniad("evaluate", checkpoint, f"data.categories=[{','.join(PRODUCTS)}]", f"output_dir={everything}")
    rows = json.loads((everything / "metrics.json").read_text())["categories"]
    return {name: row["image_auroc"] for name, row in rows.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--new", default="gear")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=360)
    given = parser.parse_args()
    old = [name for name in PRODUCTS if name != given.new]
    results = []
    for seed in given.seeds:
        folder, common = given.folder / f"seed{seed}", [f"seed={seed}"]
        before = trained(folder / "five", *common, f"data.categories=[{','.join(old)}]")
        steps = [f"trainer.max_steps={given.steps}", "trainer.max_epochs=1000"]
        start = [*common, *steps, f"init_from={folder / 'five/checkpoints/last.ckpt'}"]
        ways = {
            "scratch, 32 epochs (1440 steps)": common,
            f"scratch, {given.steps} steps": [*common, *steps],
            "init_from, all images": start,
            "init_from, rehearse=10": [*start, "rehearse=10"],
            "init_from, the new product alone": [*start, f"data.categories=[{given.new}]"],
        }
        for number, (way, words) in enumerate(ways.items()):
            after = trained(folder / f"way{number}", *words)
            kept, had = (sum(found[name] for name in old) / len(old) for found in (after, before))
            results.append({"seed": seed, "way": way, "new": after[given.new], "old": kept, "lost": had - kept})
    (given.folder / "new_product.json").write_text(json.dumps(results, indent=2) + "\n")
    for row in results:
        print(
            f"seed {row['seed']}  {row['way']:42} new {100 * row['new']:5.1f}  old {100 * row['old']:5.1f}  "
            f"lost {100 * row['lost']:4.1f}"
        )


if __name__ == "__main__":
    main()
