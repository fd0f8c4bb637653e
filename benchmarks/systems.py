"""Every method on the same images with a few minutes each: AUROC unified and separate, and what inference costs.

    python benchmarks/systems.py DATA OUT [--only padim,mkd] [--vgg16 vgg16.safetensors]

DATA has the layout of MVTec AD. OUT gets links to the first 100 train images and 40 good and 40 defective test images
(in turn of each kind) of each product, a sweep of runs per method and seed (one model for all products, and one for
each), and `systems.json` and `systems.png`. What is finished is left alone, so the same command goes on. One thread.
The settings are small, so that minutes are enough: see `METHODS`. Minutes are processor time of all runs of a method,
their evaluation included. Milliseconds, of one image from its file to its decision, and megabytes are measured in turn,
each method in a process of its own.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

LITE2 = "backbone=efficientnet_lite2"
BF16 = "data.cache=disk trainer.precision=bf16-mixed"
SMALL = "data.image_size=128"
# Of each method its words, its epochs (None: one pass) and its seeds.
METHODS: dict[str, tuple[str, int | None, tuple[int, ...]]] = {
    "memory_bank": (f"{LITE2} model.coreset=0.1 data.cache=disk", None, (0, 1)),
    "padim": (f"{LITE2} backbone.levels=[1,2,3] data.cache=disk", None, (0, 1)),
    "denoiser": (f"{LITE2} {BF16}", 18, (0,)),
    "uniad": (f"{LITE2} backbone.window=3 recipe=fast model.jitter.scale=5 {BF16}", 10, (0,)),
    "cutpaste": (f"{LITE2} backbone.levels=[4] model.grid=[4,4] {SMALL}", 4, (0, 1)),
    "panda": (f"{LITE2} backbone.levels=[4] model.frozen_modules=2", 2, (0,)),
    "fcdd": (f"{LITE2} backbone.levels=[2] model.frozen_modules=2", 3, (0,)),
    "anovit": (f"{LITE2} backbone.levels=[3] model.grid=[8,8] {SMALL}", 15, (0, 1)),
    "mkd": (f"backbone=vgg16 {SMALL}", 3, (0,)),
    "uninformed_students": (f"{LITE2} backbone.levels=[4] model.patch=33 model.stride=4 {SMALL}", 3, (0,)),
    "draem": (f"model.reconstructive_width=32 model.discriminative_width=16 {SMALL}", 2, (0,)),
    "intra": (f"model.hidden_dim=128 model.num_heads=4 model.num_layers=6 {SMALL}", 2, (0,)),
    "vt_adl": (SMALL, 2, (0,)),
    "patch_svdd": (SMALL, 4, (0,)),
}  # fmt: skip
EVAL_BATCH = {"intra": 4, "uninformed_students": 4}
MEASURE = """
import sys, time, resource, statistics, torch
from pathlib import Path
from uniad_lightning.inspection.detector import Detector
torch.set_num_threads(1)
detector = Detector.load(sys.argv[1], device="cpu")
images = sys.argv[2:]
detector.predict(images[0])
seconds = []
for image in images:
    start = time.perf_counter()
    detector.predict(image)
    seconds.append(time.perf_counter() - start)
print(statistics.median(seconds) * 1000, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def link(source: Path, target: Path) -> None:
    """Link the chosen images of each product, and their masks."""
    for product in sorted(path for path in source.iterdir() if path.is_dir()):
        chosen = (
            sorted((product / "train" / "good").iterdir())[:100] + sorted((product / "test" / "good").iterdir())[:40]
        )
        kinds = [sorted(kind.iterdir()) for kind in sorted((product / "test").iterdir()) if kind.name != "good"]
        in_turn = [kind[i] for i in range(max(map(len, kinds))) for kind in kinds if i < len(kind)][:40]
        masks = [
            mask for image in in_turn for mask in (product / "ground_truth" / image.parent.name).glob(f"{image.stem}*")
            if mask.stem in (image.stem, f"{image.stem}_mask")
        ]  # fmt: skip
        for file in (*chosen, *in_turn, *masks):
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.exists():
                place.symlink_to(file.resolve())


def train(name: str, seed: int, data: Path, out: Path, vgg16: str | None) -> None:
    """Train and test the method on all products and on each; its processor time goes into `minutes.json`."""
    folder = out / f"{name}-{seed}"
    record = folder / "minutes.json"
    if record.is_file():
        return
    words, epochs, _ = METHODS[name]
    products = sorted(path.name for path in data.iterdir())
    command = [
        sys.executable, "-m", "uniad_lightning.command_line.cli", "train", "data=mvtec", f"data.root={data}",
        "data.num_workers=0", "trainer=cpu", "data.batch_size=8", f"data.eval_batch_size={EVAL_BATCH.get(name, 8)}",
        f"model={name}", *words.split(), f"seed={seed}", f"output_dir={folder}",
        *([f"trainer.max_epochs={epochs}", "trainer.max_steps=-1"] if epochs else []),
        *([f"backbone.weights={vgg16}"] if vgg16 and name == "mkd" else []),
        "-m", "data.categories=null," + ",".join(f"[{product}]" for product in products),
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if status:
        raise SystemExit(f"{name}: the training ended with status {status}")
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    record.write_text(json.dumps(round(seconds / 60, 2)))


def aurocs(folder: Path) -> dict[str, float]:
    """Image and pixel AUROC in percent: unified mean, pooled, and the mean of the separate trainings."""
    found: dict[str, Any] = {}
    for run in sorted(path.parent for path in folder.glob("*/metrics.json")):
        categories = yaml.safe_load((run / "config.yaml").read_text())["data"]["categories"]
        found["unified" if categories is None else categories[0]] = json.loads((run / "metrics.json").read_text())
    unified = found.pop("unified")
    separate = [row["mean"] for row in found.values()]
    return {
        f"{case} {kind}": 100 * statistics.mean(row[f"{kind}_auroc"] for row in rows)
        for kind in ("image", "pixel")
        for case, rows in {"unified": [unified["mean"]], "pooled": [unified["pooled"]], "separate": separate}.items()
    }


def inference(folder: Path, images: list[Path]) -> tuple[float, float, float]:
    """Milliseconds of an image and peak megabytes of a process on one thread, and megabytes of the checkpoint."""
    run = next(
        path.parent
        for path in folder.glob("*/config.yaml")
        if not yaml.safe_load(path.read_text())["data"]["categories"]
    )
    file = run / "checkpoints" / "last.ckpt"
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(file), *map(str, images)], capture_output=True, text=True, check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    ms, megabytes = map(float, done.stdout.split()[-2:])
    return ms, megabytes, file.stat().st_size / 1e6


def draw(rows: dict[str, dict[str, float]], file: Path) -> None:
    """Image AUROC over milliseconds of an image: filled unified, hollow separate."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for name, row in rows.items():
        axes.plot([row["ms"]] * 2, [row["unified image"], row["separate image"]], color="0.7", zorder=1)
        axes.scatter(row["ms"], row["unified image"], color="C0", zorder=2)
        axes.scatter(row["ms"], row["separate image"], facecolor="white", edgecolor="C0", zorder=2)
        crowded = any(
            1 < other["ms"] / row["ms"] < 1.7 and abs(other["unified image"] - row["unified image"]) < 3
            for other in rows.values()
        )
        side, offset = ("right", -6) if crowded else ("left", 6)
        place = (row["ms"], row["unified image"])
        axes.annotate(name, place, xytext=(offset, -3), textcoords="offset points", fontsize=9, ha=side)
    axes.set_xscale("log")
    axes.set_xticks([20, 50, 100, 200, 500], ["20", "50", "100", "200", "500"])
    axes.set_xticks([], minor=True)
    axes.margins(x=0.15, y=0.08)
    axes.set_xlabel("ms for an image, one thread")
    axes.set_ylabel("mean image AUROC, %")
    axes.set_title("filled: one model for all products; hollow: one for each")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", help=f"some of {','.join(METHODS)}")
    parser.add_argument("--vgg16", help="weights of VGG-16 for MKD; else timm's hub")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(METHODS)
    data = options.out / "images"
    link(options.data, data)
    for name in names:
        for seed in METHODS[name][2]:
            started = time.monotonic()
            train(name, seed, data, options.out, options.vgg16)
            print(f"{name}, seed {seed}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
    images = sorted(data.glob("*/test/good/*"))[::20]
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        folders = [options.out / f"{name}-{seed}" for seed in METHODS[name][2]]
        seeds = [{**aurocs(folder), "minutes": json.loads((folder / "minutes.json").read_text())} for folder in folders]
        rows[name] = {key: statistics.mean(seed[key] for seed in seeds) for key in seeds[0]}
        rows[name] |= dict(zip(("ms", "megabytes", "checkpoint"), inference(folders[0], images), strict=True))
    record = options.out / "systems.json"
    rows = {**(json.loads(record.read_text()) if record.is_file() else {}), **rows}  # what --only left out stays
    heads = list(next(iter(rows.values())))
    print("| method |", " | ".join(heads), "|\n|---" + "|---" * len(heads) + "|")
    for name, row in rows.items():
        print(f"| `{name}` |", " | ".join(f"{row[head]:.1f}" for head in heads), "|")
    record.write_text(json.dumps(rows, indent=1))
    draw(rows, options.out / "systems.png")


if __name__ == "__main__":
    main()
